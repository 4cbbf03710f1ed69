#!lua flags=allow-oom
-- release: a dead letter that an open breaker held is due to run again by itself. Keys: job out log due dead dead:info
-- dead:held. ARGV: id, fingerprint.
--@include base
local fp = ARGV[2]
local v = call('HMGET', KEYS[1], 'status', 'held')
if call('ZREM', KEYS[7], fp .. ' ' .. id) == 0 or v[1] ~= 'failed' or v[2] ~= fp then return {'GONE'} end
call('HDEL', KEYS[1], 'held')
local due = later(time(), 0)
call('ZADD', KEYS[4], due, 'd ' .. id)
call('HSET', KEYS[1], 'next', due)
return {'OK'}
