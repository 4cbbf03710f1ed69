#!lua flags=allow-oom
-- durable: the tiny write that WAIT and WAITAOF wait for, over the connection that asks them. Keys: durable.
redis.call('SET', KEYS[1], ARGV[1])
return 'OK'
