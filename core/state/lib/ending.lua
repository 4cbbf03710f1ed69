-- ending: the end of a job whose last lane is gone. ending_read looks and names keys, ending_write writes.
-- `conf`: delays of reprocessing and the breaker: "300000,1800000;20".
local function ending_read(stop, conf)
    local v = call('HMGET', KEYS[1], 'keep', 'after', 'deadline', 'fp', 'tries', 'class', 'pipeline', 'progress')
    local e = {status = stop == 'cancelled' and 'cancelled' or stop and 'failed' or 'completed', keep = v[1],
               deadline = v[3], fp = v[4], tries = tonumber(v[5] or 0), class = v[6], pipeline = v[7], conf = conf,
               progress = v[8] or '0', stop = stop}
    if v[2] and find(v[2], e.status, 1, true) then e.after = key('queue:default:normal') end
    if e.status == 'failed' then
        e.dead, e.info, e.due = key('dead'), key('dead:info'), key('due')
        if stop == 'failed' then e.held = key('dead:held') end
    elseif e.fp and e.status == 'completed' then
        e.info, e.held, e.due = key('dead:info'), key('dead:held'), key('due')
    elseif e.deadline then
        e.due = key('due')
    end
    return e
end

-- Adds to `set` and `gone` (fields to set and delete); n: the last lane number; error: JSON or nil. Publishes.
local function ending_write(e, at, n, error, set, gone)
    local body, when = '', at
    if e.status == 'failed' then
        body = '"error":' .. (error or 'null') .. ','
        call('ZADD', e.dead, at, id)
        if e.class == 'retry' and e.stop == 'failed' and e.fp then
            local failures = call('HINCRBY', e.info, 'fp:' .. e.fp, 1)
            local schedule, breaker = match(e.conf, '^(.-);(%d+)$')
            local turn, delay = 0, nil
            for ms in string.gmatch(schedule, '%d+') do
                if turn == e.tries then delay = tonumber(ms) end
                turn = turn + 1
            end
            if delay and failures >= tonumber(breaker) then -- held until one of them succeeds, or by hand
                call('ZADD', e.held, 0, e.fp .. ' ' .. id)
                set[#set + 1] = 'held'
                set[#set + 1] = e.fp
            elseif delay then
                local due = later(at, delay)
                call('ZADD', e.due, due, 'd ' .. id)
                set[#set + 1] = 'next'
                set[#set + 1] = due
                when = at .. ',' .. due
                e.after = nil -- not the end yet
            end
        end
    elseif e.info then
        call('HDEL', e.info, 'fp:' .. e.fp)
        if #call('ZRANGEBYLEX', e.held, '[' .. e.fp .. ' ', '(' .. e.fp .. '!', 'LIMIT', 0, 1) > 0 then
            call('ZADD', e.due, later(at, 0), 'f ' .. e.fp)
        end
    end
    if e.deadline then call('ZREM', e.due, 'x ' .. id) end
    event('job.' .. e.status, when, '{' .. body .. '"progress":' .. (e.status == 'completed' and '100' or e.progress) .. '}')
    local last, lanes, i = publish(), '', #set
    if e.after then
        n = n + 1
        set[i + 1] = 'l:' .. n
        set[i + 2] = 'q default normal ' .. call('XADD', e.after, '*', 'j', id, 'l', n, 'p', e.pipeline) .. ' - - 0 0 0 $after'
        set[i + 3] = 's:$after'
        set[i + 4] = 'o 0 0 - - default'
        set[i + 5] = 'n'
        set[i + 6] = n
        lanes, i = n, i + 6
    end
    set[i + 1], set[i + 2] = 'status', e.status
    set[i + 3], set[i + 4] = 'finished', at
    set[i + 5], set[i + 6] = 'events', string.format('%d', last)
    set[i + 7], set[i + 8] = 'lanes', lanes
    call('HSET', KEYS[1], unpack(set))
    if #gone > 0 then call('HDEL', KEYS[1], unpack(gone)) end
    local short, long = match(e.keep, '^(%d+) (%d+)$')
    if e.status ~= 'completed' then short = long end
    call('PEXPIRE', KEYS[1], long)
    call('PEXPIRE', KEYS[2], short)
    call('PEXPIRE', KEYS[3], short)
end
