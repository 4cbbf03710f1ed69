#!lua flags=allow-oom
-- wake: what is due happens: a lane (`l ID N`, also of a resumed pipeline), a deadline (`x ID`), reprocessing (`d ID`).
-- Keys: job out log due dead dead:info, names. ARGV: id, member, held (key of a resumed pipeline's zset, or empty), conf,
-- budget a minute.
--@include base
--@include lane
--@include lanes
--@include ending
--@include closing
--@include rerun
--@include stopping
local member, held, conf, budget = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local from = key(held ~= '' and held or 'due')
if wanted then return wanted end
local score = call('ZSCORE', from, member)
if not score then return {'GONE'} end
local at = time()
if held == '' and tonumber(score) > tonumber(at) then return {'EARLY'} end
local kind, n = sub(member, 1, 1), match(member, ' (%d+)$')
local v = call('HMGET', KEYS[1], 'status', 'stop', 'lanes', 'pipeline', 'n', 'error', 'prio', 'tries', 'fp', 'deadline',
               'l:' .. (n or '0'))
local status = v[1]
local ended = status == 'completed' or status == 'failed' or status == 'cancelled'
local function gone()
    call('ZREM', from, member)
    return {'GONE'}
end
if not status then return gone() end

if kind == 'l' then
    local l = v[11] and lane_read(v[11])
    if not l or l.state ~= (held ~= '' and 'h' or 'd') then return gone() end
    local to = key('queue:' .. l.queue .. ':' .. v[7])
    if wanted then return wanted end
    call('ZREM', from, member)
    l.state, l.class = 'q', v[7]
    l.entry = entry_new(to, n, v[4])
    local set = {'l:' .. n, lane_text(l)}
    if status == 'waiting' then
        set[3] = 'status'
        set[4] = 'queued'
    end
    call('HSET', KEYS[1], unpack(set))
    return {'OK'}
elseif kind == 'x' then
    if ended or v[2] == 'cancelled' then return gone() end
    local error = not v[6] and '{"code":"deadline","message":"the job\'s deadline has passed","class":"permanent",' ..
                               '"retryable":false}' or nil
    stop_job({pipeline = v[4], lanes = v[3], n = v[5], error = v[6]}, 'deadline', error, conf)
    if wanted then return wanted end
    call('ZREM', from, member)
    return {'OK'}
elseif kind == 'd' then
    if status ~= 'failed' then return gone() end
    local breaker = tonumber(match(conf, ';(%d+)$'))
    if v[9] and tonumber(call('HGET', KEYS[6], 'fp:' .. v[9]) or 0) >= breaker then
--@include giveup
        local g, hold = giveup_read(), key('dead:held')
        if wanted then return wanted end
        call('ZADD', hold, 0, v[9] .. ' ' .. id)
        call('HSET', KEYS[1], 'held', v[9])
        giveup_write(g, at)
        return {'GONE'}
    end
    local minute = math.floor(at / 60000)
    local b = call('HMGET', KEYS[6], 'minute', 'count')
    local count = tonumber(b[1] or 0) == minute and tonumber(b[2]) or 0
    if count >= budget then
        call('ZADD', from, later(at, 60000), member)
        call('HSET', KEYS[1], 'next', later(at, 60000))
        return {'LATER'}
    end
    local r = rerun_read({})
    if wanted then return wanted end
    if not r then
--@include giveup
        local g = giveup_read()
        if wanted then return wanted end
        giveup_write(g, at)
        return {'GONE'}
    end
    call('HSET', KEYS[6], 'minute', minute, 'count', count + 1)
    local tries = tonumber(v[8] or 0) + 1
    rerun_write(r, at, 'd:' .. id .. '/' .. r.job.round, 0, false, tries)
    return {'OK'}
end
return gone()
