#!lua flags=allow-oom
-- enroll: registers a worker's name. Keys: worker:NAME, workers. ARGV: instance, the instance known to have died (or
-- empty), lease, name.
local there = redis.call('HGET', KEYS[1], 'instance')
if there and there ~= ARGV[1] and there ~= ARGV[2] then return 0 end
local t, lease = redis.call('TIME'), tonumber(ARGV[3])
local at = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], 'instance', ARGV[1], 'since', string.format('%.0f', at))
redis.call('PEXPIRE', KEYS[1], 2 * lease)
redis.call('ZADD', KEYS[2], string.format('%.0f', at + 2 * lease), ARGV[4])
return 1
