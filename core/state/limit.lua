#!lua flags=allow-oom
-- limit: a place under a rate limit. Keys: limit:NAME (hash: rpm and tpm, the times in us at which the next may begin;
-- cool), limit:NAME:held (zset: holders by the end of their time in ms), limit:NAME:log (list: the last rpm beginnings,
-- newest first; only with a burst, for even spacing needs none to keep within rpm in any 60 s). ARGV: what (take release cool), holder, rpm, burst,
-- tpm, most in flight, tokens, hold ms, most wait ms. Times are microseconds: they fit a double until 2255.
local call = redis.call
local limit, held, log = KEYS[1], KEYS[2], KEYS[3]
local what, holder = ARGV[1], ARGV[2]
local rpm, burst, tpm, most, tokens = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local hold, wait_max = tonumber(ARGV[8]), tonumber(ARGV[9])
local t = call('TIME')
local now = t[1] * 1000000 + t[2]
local function text(us) return string.format('%.0f', us) end

if what == 'cool' then
    local until_us = now + hold * 1000
    if until_us > tonumber(call('HGET', limit, 'cool') or 0) then
        call('HSET', limit, 'cool', text(until_us))
        call('PEXPIRE', limit, 300000)
    end
    return {'OK', 0}
end
if what == 'release' then
    if call('ZREM', held, holder) == 1 and tpm > 0 and tokens ~= 0 then
        local tat = tonumber(call('HGET', limit, 'tpm') or now)
        if tat < now then tat = now end
        call('HSET', limit, 'tpm', text(tat + tokens * 60000000 / tpm))
    end
    return {'OK', 0}
end

-- Booked already (the reply was lost): a holder's score is the end of its time, so its beginning is known.
local there = call('ZSCORE', held, holder)
if there then
    local begin = tonumber(there) - hold
    local wait = begin - now / 1000
    return {'TAKEN', wait > 0 and math.ceil(wait) or 0}
end
if most > 0 then
    call('ZREMRANGEBYSCORE', held, '-inf', text(now / 1000))
    if call('ZCARD', held) >= most then return {'LATER', 100} end
end
local v = call('HMGET', limit, 'rpm', 'tpm', 'cool')
local start = now
if v[3] and tonumber(v[3]) > start then start = tonumber(v[3]) end
local spacing, tat = 0, tonumber(v[1] or 0)
if rpm > 0 then
    if burst > rpm then burst = rpm end
    spacing = 60000000 / rpm
    if tat - (burst - 1) * spacing > start then start = tat - (burst - 1) * spacing end
    local oldest = burst > 1 and call('LINDEX', log, rpm - 1)
    if oldest and oldest + 60000000 > start then start = oldest + 60000000 end
end
local token_tat = tonumber(v[2] or 0)
if tpm > 0 and token_tat > start then start = token_tat end
local wait = math.ceil((start - now) / 1000)
if wait > wait_max then return {'LATER', wait} end
if rpm > 0 then
    if tat < start then tat = start end
    call('HSET', limit, 'rpm', text(tat + spacing))
    if burst > 1 then
        call('LPUSH', log, text(now + wait * 1000))
        call('LTRIM', log, 0, rpm - 1)
        call('PEXPIRE', log, wait + 120000)
    end
end
if tpm > 0 then call('HSET', limit, 'tpm', text(start + tokens * 60000000 / tpm)) end
call('PEXPIRE', limit, wait + 300000)
call('ZADD', held, text(now / 1000 + wait + hold), holder)
call('PEXPIRE', held, wait + hold + 60000)
return {'TAKEN', wait}
