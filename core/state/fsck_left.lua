#!lua flags=allow-oom
-- fsck_left: outputs or events of a job that is not there. Keys: job, out or log. ARGV: repair. The keys of an ended job
-- expire within the same moment, in any order: that is no finding.
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
local ttl = redis.call('PTTL', KEYS[2])
if ttl >= 0 and ttl < 1000 then return 0 end
if ARGV[1] == '1' then redis.call('DEL', KEYS[2]) end
return 1
