#!lua flags=allow-oom
-- group: makes a stream's group, at its beginning, and the stream: a queue that is new must not keep the others from
-- being read when memory is short. Keys: stream. ARGV: group.
local reply = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if reply.err and not string.find(reply.err, 'BUSYGROUP', 1, true) then return reply end
return 1
