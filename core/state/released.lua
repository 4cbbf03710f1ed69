#!lua flags=allow-oom
-- released: ends the release of a fingerprint when nothing of it is held any more, or its breaker is open again. Keys:
-- due, dead:held, dead:info. ARGV: fingerprint, breaker.
local fp = ARGV[1]
local open = tonumber(redis.call('HGET', KEYS[3], 'fp:' .. fp) or 0) >= tonumber(ARGV[2])
if open or #redis.call('ZRANGEBYLEX', KEYS[2], '[' .. fp .. ' ', '(' .. fp .. '!', 'LIMIT', 0, 1) == 0 then
    return redis.call('ZREM', KEYS[1], 'f ' .. fp)
end
return 0
