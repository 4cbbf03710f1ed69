#!lua flags=no-writes
-- read: a job in one answer. Keys: job out log. ARGV: 1 with outputs.
local t = redis.call('TIME')
local job = redis.call('HGETALL', KEYS[1])
return {job, ARGV[1] == '1' and redis.call('HGETALL', KEYS[2]) or {}, redis.call('LLEN', KEYS[3]),
        t[1] * 1000 + math.floor(t[2] / 1000), redis.call('PEXPIRETIME', KEYS[1])}
