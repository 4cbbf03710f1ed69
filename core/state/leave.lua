#!lua flags=allow-oom
-- leave: takes a registration back. Keys: worker:NAME, workers. ARGV: instance, name.
if redis.call('HGET', KEYS[1], 'instance') ~= ARGV[1] then return 0 end
redis.call('ZREM', KEYS[2], ARGV[2])
return redis.call('DEL', KEYS[1])
