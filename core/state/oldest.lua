#!lua flags=no-writes
-- oldest: the oldest members of a list that may have outlived their jobs. Keys: jobs or dead. ARGV: age in ms.
local t = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', t[1] * 1000 - tonumber(ARGV[1]), 'LIMIT', 0, 20)
