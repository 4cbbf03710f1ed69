#!lua
-- ready: how many workers are registered. Keys: workers. It writes nothing, and has no flag on purpose: Redis refuses
-- it whenever it would refuse a submit (out of memory, failing disk, read-only), and says why.
local t = redis.call('TIME')
return redis.call('ZCOUNT', KEYS[1], t[1] * 1000 + math.floor(t[2] / 1000), '+inf')
