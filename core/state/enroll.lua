#!lua
-- enroll: registers a worker's name. Keys: worker:NAME. ARGV: instance, the instance known to have died (or empty), lease.
local there = redis.call('HGET', KEYS[1], 'instance')
if there and there ~= ARGV[1] and there ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'instance', ARGV[1])
redis.call('PEXPIRE', KEYS[1], 2 * tonumber(ARGV[3]))
return 1
