-- rerun: runs an ended job again from where it failed. rerun_read looks, rerun_write writes.
-- reset: stages to run again although they are done, the first one opens, the others wait for it.
local function rerun_read(reset)
    local all, r = call('HGETALL', KEYS[1]), {open = {}, gone = {}, wipe = {}, job = {}, fewer = 0}
    local stages = {}
    for i = 1, #all, 2 do
        local stage = match(all[i], '^s:(.+)$')
        if stage then
            stages[stage] = all[i + 1]
        elseif all[i] ~= 'input' then
            r.job[all[i]] = all[i + 1]
        end
    end
    local done = tonumber(r.job.done or 0)
    if done > 0 and call('EXISTS', KEYS[2]) == 0 then return nil end -- its outputs have expired
    if #reset > 0 and not stages[reset[1]] then return nil end
    for i, name in ipairs(reset) do
        local text = stages[name]
        if text then
            local state, queue = match(text, '^(%a) %d+ %d+ %S+ %S+ (%S+)')
            if state == 'd' or state == 's' then r.fewer = r.fewer + 1 end
            r.wipe[#r.wipe + 1] = name
            if i == 1 then
                stages[name] = 'o 0 0 - - ' .. queue
            else
                stages[name] = nil
                r.gone[#r.gone + 1] = name
            end
        end
    end
    if #reset > 0 then
        stages['$end'] = nil
        r.gone[#r.gone + 1] = '$end'
    end
    stages['$after'] = nil
    r.gone[#r.gone + 1] = '$after'
    if r.job['steps:$after'] or r.job['calls:$after'] then r.wipe[#r.wipe + 1] = '$after' end -- the next round's is another
    local any = 'default'
    for name, text in pairs(stages) do
        local state, attempts, throttled, queue = match(text, '^(%a) (%d+) (%d+) %S+ %S+ (%S+)')
        any = queue
        if state == 'o' or state == 'f' then
            r.open[#r.open + 1] = {name = name, attempts = attempts, throttled = throttled, queue = queue}
        end
    end
    if #r.open == 0 then r.open[1] = {name = '$end', attempts = 0, throttled = 0, queue = any} end
    r.dead, r.due = key('dead'), key('due')
    if r.job.held then r.held = key('dead:held') end
    table.sort(r.open, function(a, b) return a.name < b.name end)
    r.queues, r.by = {}, {}
    for _, s in ipairs(r.open) do
        if not r.by[s.queue] then
            r.by[s.queue] = {}
            r.queues[#r.queues + 1] = s.queue
            key('queue:' .. s.queue .. ':' .. r.job.prio)
        end
        table.insert(r.by[s.queue], s.name)
    end
    if r.job.lanes and r.job.lanes ~= '' then -- an `$after` lane: it belongs to the last round and goes, even when it runs
        r.close = closing_read(r.job.lanes, '', r.job.pipeline, false)
        for _, l in ipairs(r.close.ring) do
            l.stream = key('queue:' .. l.queue .. ':' .. l.class)
            r.close.close[#r.close.close + 1] = l
        end
    end
    return r
end

-- ttl: ms of a new deadline, 0: as long as the first one. Publishes.
local function rerun_write(r, at, req, ttl, fresh, tries)
    local job = r.job
    local set = {'round', job.round + 1, 'req', req, 'status', 'queued', 'tries', tries, 'done', (job.done or 0) - r.fewer}
    local gone = {'stop', 'error', 'finished', 'next', 'events', 'discarded', 'class', 'held'}
    if r.close then
        closing_write(r.close, job.pipeline, set, gone)
    end
    for _, name in ipairs(r.gone) do gone[#gone + 1] = 's:' .. name end
    for _, name in ipairs(r.wipe) do
        gone[#gone + 1] = 'calls:' .. name
        for step in string.gmatch(job['steps:' .. name] or '', '[^,]+') do
            call('HDEL', KEYS[2], name .. '#' .. step)
        end
        gone[#gone + 1] = 'steps:' .. name
        call('HDEL', KEYS[2], name)
    end
    for _, s in ipairs(r.open) do
        set[#set + 1] = 's:' .. s.name
        set[#set + 1] = 'o ' .. (fresh and 0 or s.attempts) .. ' ' .. (fresh and 0 or s.throttled) .. ' - - ' .. s.queue ..
                        ((job['steps:' .. s.name] or job['calls:' .. s.name]) and ' *' or '')
    end
    local n, lanes = tonumber(job.n), {}
    for _, queue in ipairs(r.queues) do
        n = n + 1
        local entry = entry_new(key('queue:' .. queue .. ':' .. job.prio), n, job.pipeline)
        lanes[#lanes + 1] = n
        set[#set + 1] = 'l:' .. n
        set[#set + 1] = 'q ' .. queue .. ' ' .. job.prio .. ' ' .. entry .. ' - - 0 0 0 ' .. table.concat(r.by[queue], ',')
    end
    if ttl == 0 then ttl = tonumber(job.ttl or 0) end
    if ttl > 0 then
        set[#set + 1] = 'deadline'
        set[#set + 1] = later(at, ttl)
        call('ZADD', r.due, later(at, ttl), 'x ' .. id)
    else
        gone[#gone + 1] = 'deadline'
    end
    set[#set + 1] = 'n'
    set[#set + 1] = n
    set[#set + 1] = 'lanes'
    set[#set + 1] = table.concat(lanes, ',')
    if r.fewer > 0 then
        set[#set + 1] = 'progress'
        set[#set + 1] = 0
    end
    call('HDEL', KEYS[1], unpack(gone))
    call('HSET', KEYS[1], unpack(set))
    call('PERSIST', KEYS[1])
    call('PERSIST', KEYS[2])
    call('PERSIST', KEYS[3])
    call('ZREM', r.dead, id)
    call('ZREM', r.due, 'd ' .. id)
    if r.held then call('ZREM', r.held, job.held .. ' ' .. id) end
    event('job.queued', at, '{"round":' .. (job.round + 1) .. ',"progress":' .. (r.fewer > 0 and 0 or job.progress or 0) .. '}')
    publish()
    return job.round + 1
end
