#!lua flags=allow-oom
-- bury: deletes a consumer that is not registered and has nothing pending. Keys: a stream, worker:NAME. ARGV: consumer.
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
if #redis.call('XPENDING', KEYS[1], 'workers', '-', '+', 1, ARGV[1]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'workers', ARGV[1])
return 1
