#!lua flags=allow-oom
-- durability: notes in a job what its last checkpoint got. Keys: job. ARGV: `ASKED GOT WHY`.
local had = redis.call('HMGET', KEYS[1], 'status', 'durability')
if not had[1] then return 'GONE' end
if had[2] ~= ARGV[1] then redis.call('HSET', KEYS[1], 'durability', ARGV[1]) end
return 'OK'
