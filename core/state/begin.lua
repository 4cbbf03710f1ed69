#!lua flags=allow-oom
-- begin: a worker takes a lane that it has claimed. Keys: job out log, the entry's stream, paused, names.
-- ARGV: id, lane, entry, fence, worker, revision, known, adopt, an instance whose death has a culprit (or empty),
-- max_crashes, conf, the culprit in words, its stage (`*`: not known; empty: the culprit is another job), the most
-- takeovers that the caller may run now (0: any), ms to put it off by when it has more (0: only say so). To adopt: NAME
-- QUEUE NEEDS of each stage of `revision`.
--@include base
--@include lane
local n, entry, fence, worker, revision, known = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local max_crashes, conf, most = tonumber(ARGV[10]), ARGV[11], tonumber(ARGV[14])
local stream = KEYS[4]

local v = call('HMGET', KEYS[1], 'l:' .. n, 'status', 'stop', 'pipeline', 'rev', 'round', 'lanes', 'prio', 'created',
               'started', 'deadline', 'done', 'progress', 'input', 'meta', 'owner', 'ancestors', 'after')
local text, status, stop, pipeline, lanes = v[1], v[2], v[3], v[4], v[7]
local l = text and lane_read(text)
if not l or l.entry ~= entry then
    call('XACK', stream, 'workers', entry)
    call('XDEL', stream, entry)
    return {'GONE'}
end
-- Claimed by this consumer still? (An error: no such group, Redis has forgotten the claim.)
local pending = redis.pcall('XPENDING', stream, 'workers', entry, entry, 1, worker)
if pending.err or #pending == 0 then return {'LOST'} end

local ended = status == 'completed' or status == 'failed' or status == 'cancelled'
local winding = (stop == 'cancelled' or stop == 'deadline') and not ended
local mine = l.state == 'r' and l.fence == fence
local at = time()
local set = {}
local stages = {}
for stage in string.gmatch(l.stages, '[^,]+') do stages[#stages + 1] = stage end

if not mine then
    if l.state == 'r' then
        -- Whose doing the end of that worker was is known of one instance alone, and judges only the lanes it had: the
        -- culprit's is charged, the others are not. Any other loss counts as a takeover.
        local judged = ARGV[9] ~= '' and sub(l.fence, 1, #ARGV[9] + 1) == ARGV[9] .. '.'
        local culprit = judged and ARGV[13] ~= '' and
                        (ARGV[13] == '*' or l.stages == '$after' or find(',' .. l.stages .. ',', ',' .. ARGV[13] .. ',', 1, true))
        if culprit then
            l.crashes = l.crashes + 1
        elseif not judged or ARGV[13] ~= '' then
            l.takeovers = l.takeovers + 1
        end
        if (l.crashes > max_crashes or l.takeovers > 20) and not winding then
--@include lanes
            -- Poison: every stage of the lane fails, the lane closes, and so do those that do not run.
            if ended then
                entry_end(stream, entry)
                call('HDEL', KEYS[1], 'l:' .. n)
                call('HSET', KEYS[1], 'lanes', lanes_without(lanes, n))
                return {'POISON'}
            end
--@include ending
--@include closing
            local c = closing_read(lanes, n, pipeline, false)
            local left = closing_lanes(c)
            local e = left == '' and ending_read('failed', conf)
            if wanted then return wanted end
            local named = culprit and ARGV[12] ~= '' and ': ' .. ARGV[12] or ''
            local at_stage = culprit and ARGV[13] ~= '*' and ARGV[13] or stages[1]
            local w = call('HMGET', KEYS[1], 'error', 'n')
            local error = w[1] or '{"code":"poison","message":"the job brought its process down too often' .. named ..
                                   '","stage":"' .. at_stage .. '","class":"crash","retryable":false}'
            local gone = {'l:' .. n}
            entry_end(stream, entry)
            local records = {}
            for i, stage in ipairs(stages) do records[i] = 's:' .. stage end
            for i, record in ipairs(call('HMGET', KEYS[1], unpack(records))) do
                local attempts, rest = match(record, '^%a (%d+) (%d+ %S+) ')
                set[#set + 1] = records[i]
                set[#set + 1] = 'f ' .. (attempts + 1) .. ' ' .. rest .. ' ' .. at .. ' ' .. l.queue
                event('stage.failed', at, '{"stage":"' .. stages[i] .. '","attempt":' .. (attempts + 1) .. ',"error":' ..
                                          error .. ',"progress":' .. (v[13] or 0) .. '}')
            end
            for _, pair in ipairs({'stop', 'failed', 'error', error, 'class', 'crash'}) do set[#set + 1] = pair end
            closing_write(c, pipeline, set, gone)
            if e then
                e.class = 'crash'
                ending_write(e, at, tonumber(w[2]), error, set, gone)
            else
                set[#set + 1] = 'lanes'
                set[#set + 1] = left
                set[#set + 1] = 'status'
                set[#set + 1] = closing_status(c)
                call('HSET', KEYS[1], unpack(set))
                call('HDEL', KEYS[1], unpack(gone))
                publish()
            end
            return {'POISON'}
        end
    end
    if not stop and not ended and call('HGET', KEYS[5], pipeline) == '1' then
--@include lanes
        local held = key('held:' .. pipeline)
        if wanted then return wanted end
        entry_end(stream, entry)
        call('ZADD', held, at, 'l ' .. id .. ' ' .. n)
        l.state, l.entry, l.fence, l.worker = 'h', '-', '-', '-'
        call('HSET', KEYS[1], 'l:' .. n, lane_text(l), 'status', lanes_status(lanes, n))
        return {'HELD'}
    end
    if most > 0 and l.takeovers > most and not winding then
        local delay = tonumber(ARGV[15])
        if delay == 0 then return {'SUSPECT', l.takeovers} end
--@include lanes
        local to = key('due')
        if wanted then return wanted end
        local due = later(at, math.max(delay, math.min(delay * 2 ^ math.min(l.refused, 10), 30000)))
        entry_end(stream, entry)
        call('ZADD', to, due, 'l ' .. id .. ' ' .. n)
        l.state, l.entry, l.fence, l.worker, l.refused = 'd', due, '-', '-', l.refused + 1
        call('HSET', KEYS[1], 'l:' .. n, lane_text(l), 'status', ended and status or lanes_status(lanes, n))
        return {'PUT_OFF'}
    end
end

-- The revision. When it is not known the lane is granted all the same, to be parked, failed or begun again.
local verdict, rev, alone = 'OK', v[5], 1
if string.find(lanes, ',', 1, true) then
    for k in string.gmatch(lanes, '%d+') do
        if k ~= n and sub(call('HGET', KEYS[1], 'l:' .. k), 1, 1) == 'r' then alone = 0 end
    end
end
if not rev and revision == '' then -- the worker does not have the pipeline
    rev, verdict = '', 'REV'
elseif not rev then
    rev = revision
    set[#set + 1] = 'rev'
    set[#set + 1] = rev
elseif rev ~= revision and not string.find(',' .. known .. ',', ',' .. rev .. ',', 1, true) then
    -- Adopted only in a state that the other revision could have come to: every stage that is open or done is one of
    -- its own, in the same queue, with all its needs done; of every other one a need is not done yet.
    local fits = ARGV[8] == '1' and alone == 1
    if fits then
        local all, records, count = call('HGETALL', KEYS[1]), {}, 0
        for i = 1, #all, 2 do
            local name = match(all[i], '^s:([^$].*)$')
            if name then
                records[name] = all[i + 1]
                count = count + 1
            end
        end
        for i = 16, #ARGV, 3 do
            local record, ready = records[ARGV[i]], true
            for need in string.gmatch(ARGV[i + 2], '[^,]+') do
                if not match(records[need] or '-', '^[ds]') then ready = false end
            end
            if (record ~= nil) ~= ready then fits = false end
            if record then
                count = count - 1
                if match(record, '^%a %d+ %d+ %S+ %S+ (%S+)') ~= ARGV[i + 1] then fits = false end
            end
        end
        if count ~= 0 then fits = false end
    end
    if fits then
        rev = revision
        set[#set + 1] = 'rev'
        set[#set + 1] = rev
    else
        verdict = 'REV'
    end
end
if winding then verdict = 'STOP' end

local records = {}
for i, stage in ipairs(stages) do records[i] = 's:' .. stage end
local attempts = {}
for i, record in ipairs(call('HMGET', KEYS[1], unpack(records))) do
    local used, throttled, started, flag = match(record, '^%a (%d+) (%d+) (%S+) %S+ %S+( ?%*?)$')
    attempts[i] = used .. '/' .. throttled
    if verdict == 'OK' and (not mine or started == '-') then
        if started == '-' then
            set[#set + 1] = records[i]
            set[#set + 1] = 'o ' .. used .. ' ' .. throttled .. ' ' .. at .. ' - ' .. l.queue .. flag
        end
        if not ended then
            event('stage.started', at, '{"stage":"' .. stages[i] .. '","attempt":' .. string.format('%d', used + 1) .. ',"progress":' ..
                                       (v[13] or 0) .. '}')
        end
    end
end
if not mine then
    l.state, l.fence, l.worker = 'r', fence, worker
    set[#set + 1] = 'l:' .. n
    set[#set + 1] = lane_text(l)
    if not ended and status ~= 'processing' then
        set[#set + 1] = 'status'
        set[#set + 1] = 'processing'
    end
end
if verdict == 'OK' and not v[10] then
    set[#set + 1] = 'started'
    set[#set + 1] = at
end
if #set > 0 then call('HSET', KEYS[1], unpack(set)) end
if #events > 0 then publish() end

-- What the worker gets to see. A job that was never begun has no outputs yet.
local outputs, children = {}, {}
if v[10] then
    local all, names = call('HGETALL', KEYS[2]), {}
    for i = 1, #all, 2 do names[#names + 1] = 's:' .. all[i] end
    local states = #names > 0 and call('HMGET', KEYS[1], unpack(names)) or {}
    for i = 1, #all, 2 do
        outputs[#outputs + 1] = all[i]
        outputs[#outputs + 1] = sub(states[(i + 1) / 2] or '-', 1, 1)
        outputs[#outputs + 1] = all[i + 1]
    end
end
if verdict == 'STOP' then
    for i, stage in ipairs(stages) do records[i] = 'calls:' .. stage end
    for i, noted in ipairs(call('HMGET', KEYS[1], unpack(records))) do
        for child, req, timeout in string.gmatch(noted or '', '(%S+) (%S+) ?(%d*)\n') do
            children[#children + 1] = stages[i]
            children[#children + 1] = child
            children[#children + 1] = req
            children[#children + 1] = timeout
        end
    end
end
return {verdict, v[6], v[11] and not ended and string.format('%.0f', v[11] - at) or '', l.crashes, l.takeovers, v[12] or '0', v[9], v[8], status, stop or '',
        alone, rev, l.stages, table.concat(attempts, ','), v[14], v[15] or '', v[16] or '', v[17] or '', v[18] or '',
        outputs, children}
