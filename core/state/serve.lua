#!lua flags=allow-oom
-- serve: a registered worker says what it does. Keys: worker:NAME. ARGV: instance, its queues separated by `,`, slots.
if redis.call('HGET', KEYS[1], 'instance') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'queues', ARGV[2], 'slots', ARGV[3])
return 1
