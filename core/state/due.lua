#!lua flags=no-writes
-- due: what is due now, and in how many ms the next is. Keys: due, paused. The reply: ms (-1: nothing waits), paused
-- pipelines that are being resumed, members.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)
local next, resumed = -1, {}
if #members < 100 then
    local first = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if first[2] then next = first[2] - now end
else
    next = 0
end
local paused = redis.call('HGETALL', KEYS[2])
for i = 2, #paused, 2 do
    if paused[i] == '0' then resumed[#resumed + 1] = paused[i - 1] end
end
return {next, resumed, members}
