#!lua flags=allow-oom
-- leave: takes a registration back. Keys: worker:NAME. ARGV: instance.
if redis.call('HGET', KEYS[1], 'instance') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
