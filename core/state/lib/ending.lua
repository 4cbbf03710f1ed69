-- ending: the end of a job whose last lane is gone. ending_read looks and names keys, ending_write writes.
-- `conf`: max dead tries as `MS,MS,…` and the breaker: "300000,1800000;20".
local function ending_read(stop, conf)
    local v = call('HMGET', KEYS[1], 'keep', 'after', 'deadline', 'fp', 'tries', 'class', 'pipeline', 'progress')
    local e = {status = stop == 'cancelled' and 'cancelled' or stop and 'failed' or 'completed', keep = v[1],
               deadline = v[3], fp = v[4], tries = tonumber(v[5] or 0), class = v[6], pipeline = v[7], conf = conf,
               progress = v[8] or '0', stop = stop}
    if v[2] and string.find(v[2], e.status, 1, true) then e.after = key('queue:default:normal') end
    return e
end

-- Adds to `set` and `gone` (fields to set and delete); n: the last lane number; error: JSON or nil. Publishes.
local function ending_write(e, at, n, error, set, gone)
    local body, when = '', at
    if e.status == 'failed' then
        body = '"error":' .. (error or 'null') .. ','
        call('ZADD', KEYS[5], at, id)
        if e.class == 'retry' and e.stop == 'failed' and e.fp then
            local failures = call('HINCRBY', KEYS[6], 'fp:' .. e.fp, 1)
            local schedule, breaker = match(e.conf, '^(.-);(%d+)$')
            local turn, delay = 0, nil
            for ms in string.gmatch(schedule, '%d+') do
                if turn == e.tries then delay = tonumber(ms) end
                turn = turn + 1
            end
            if delay and failures < tonumber(breaker) then
                if delay < 50 then delay = 50 end
                call('ZADD', KEYS[4], at + delay, 'd ' .. id)
                set[#set + 1] = 'next'
                set[#set + 1] = at + delay
                when = at .. ',' .. (at + delay)
            end
        end
    elseif e.status == 'completed' and e.fp then
        call('HDEL', KEYS[6], 'fp:' .. e.fp)
    end
    if e.deadline then call('ZREM', KEYS[4], 'x ' .. id) end
    event('job.' .. e.status, when, '{' .. body .. '"progress":' .. (e.status == 'completed' and 100 or e.progress) .. '}')
    local last = publish()
    local lanes = ''
    if e.after then
        n = n + 1
        local entry = call('XADD', e.after, '*', 'j', id, 'l', n, 'p', e.pipeline)
        set[#set + 1] = 'l:' .. n
        set[#set + 1] = 'q default normal ' .. entry .. ' - - 0 0 0 $after'
        set[#set + 1] = 's:$after'
        set[#set + 1] = 'o 0 0 - - default'
        set[#set + 1] = 'n'
        set[#set + 1] = n
        lanes = n
    end
    for _, v in ipairs({'status', e.status, 'finished', at, 'events', last, 'lanes', lanes}) do set[#set + 1] = v end
    call('HSET', KEYS[1], unpack(set))
    if #gone > 0 then call('HDEL', KEYS[1], unpack(gone)) end
    local short, long = match(e.keep, '^(%d+) (%d+)$')
    if e.status ~= 'completed' then short = long end
    call('PEXPIRE', KEYS[1], long)
    call('PEXPIRE', KEYS[2], short)
    call('PEXPIRE', KEYS[3], short)
end
