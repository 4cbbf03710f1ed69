#!lua flags=allow-oom
-- commit: the checkpoint: a stage's output and what comes next. Keys: job out log, the lane's own stream, names.
-- ARGV: id, lane, fence, stage, d or s, output, total, known, count, (NAME QUEUE NEEDS of each successor, NEEDS without this
-- stage and separated by `,`), then what is only given when it is needed: usage, conf, have, result.
-- This script decides how many jobs a second there can be: what is rare stands inside its branch, functions too.
local call, match, sub, find, format = redis.call, string.match, string.sub, string.find, string.format
local KEYS, ARGV = KEYS, ARGV
local id, stage, count = ARGV[1], ARGV[4], tonumber(ARGV[9])
local lane, record, v = 'l:' .. ARGV[2], 's:' .. stage, nil
if count == 0 then
    v = call('HMGET', KEYS[1], lane, record, 'stop', 'done', 'progress')
elseif count == 1 and ARGV[12] == '' then
    v = call('HMGET', KEYS[1], lane, record, 'stop', 'done', 'progress', 's:' .. ARGV[10])
else
    local fields = {lane, record, 'stop', 'done', 'progress'}
    for i = 10, 7 + 3 * count, 3 do
        fields[#fields + 1] = 's:' .. ARGV[i]
        for need in string.gmatch(ARGV[i + 2], '[^,]+') do fields[#fields + 1] = 's:' .. need end
    end
    v = call('HMGET', KEYS[1], unpack(fields))
end
if not v[1] then return {'LOST'} end
-- A checkpoint is progress: takeovers and refusals of the lane begin at 0 again.
local state, queue, claim, fence, rest, stages = match(v[1], '^(%a) (%S+) (%S+ %S+) (%S+) (%S+ %d+) %d+ %d+ (%S*)$')
if state ~= 'r' or fence ~= ARGV[3] then return {'LOST'} end
local stop, done, more = v[3], tonumber(v[4] or 0), 10 + 3 * count
local winding = stop == 'cancelled' or stop == 'deadline'

-- Outputs that this worker does not have, when stages have finished elsewhere.
local function missing()
    local outputs, names, records = {}, {}, {}
    local have = ',' .. (ARGV[more + 2] or '') .. ',' .. stage .. ','
    for _, name in ipairs(call('HKEYS', KEYS[2])) do
        if not find(name, '#', 1, true) and not find(have, ',' .. name .. ',', 1, true) then
            names[#names + 1] = name
            records[#records + 1] = 's:' .. name
        end
    end
    if #names == 0 then return outputs end
    local texts, states = call('HMGET', KEYS[2], unpack(names)), call('HMGET', KEYS[1], unpack(records))
    for i, name in ipairs(names) do
        outputs[#outputs + 1] = name
        outputs[#outputs + 1] = sub(states[i] or '-', 1, 1)
        outputs[#outputs + 1] = texts[i]
    end
    return outputs
end

local open = {}
if stages ~= stage then
    local found = false
    for name in string.gmatch(stages, '[^,]+') do
        if name == stage then found = true else open[#open + 1] = name end
    end
    if not found then
        return {winding and 'STOP' or 'OK', stages, done > tonumber(ARGV[8]) and missing() or nil}
    end
end

-- Decide.
local t = call('TIME')
local at = t[1] .. sub('000000' .. t[2], -6, -4)
local progress, set, gone, finish = v[5] or '0', nil, {}, false
local news, new = nil, nil -- events; lanes to open: {queue, stages}
local result = ARGV[more + 3]
if stage == '$end' then
    set = {}
    if result and not stop then
        finish = true
        gone[1] = 's:$end'
    elseif not stop then
        return redis.error_reply('ERR the commit of $end needs a result')
    end
elseif stage == '$after' then
    set = {}
    gone = {'s:$after', 'calls:$after', 'steps:$after'}
    for name in string.gmatch(call('HGET', KEYS[1], 'steps:$after') or '', '[^,]+') do call('HDEL', KEYS[2], '$after#' .. name) end
else
    local attempts, throttled, started, flag = match(v[2], '^%a (%d+) (%d+) (%S+) %S+ %S+ ?(%*?)$')
    local outcome, total = ARGV[5], tonumber(ARGV[7])
    local attempt = format('%d', attempts + 1)
    done = done + 1
    local percent = done >= total and 99 or done * 100 / total
    if percent > tonumber(progress) then progress = format('%d', percent) end
    set = {record, outcome .. ' ' .. (outcome == 'd' and attempt or attempts) .. ' ' .. throttled .. ' ' .. started .. ' ' .. at ..
                   ' ' .. queue, 'done', format('%d', done), 'progress', progress}
    news = 'stage.completed ' .. at .. ' {"stage":"' .. stage .. '","attempt":' .. attempt ..
           (outcome == 's' and ',"skipped":true,"progress":' or ',"progress":') .. progress .. '}'
    if flag == '*' then -- it has noted children or steps
        local noted = call('HGET', KEYS[1], 'steps:' .. stage)
        gone = {'calls:' .. stage, 'steps:' .. stage}
        for name in string.gmatch(noted or '', '[^,]+') do call('HDEL', KEYS[2], stage .. '#' .. name) end
    end
    local f = 6
    for i = 10, more - 1, 3 do
        local ready = not v[f]
        f = f + 1
        if ARGV[i + 2] ~= '' then
            for _ in string.gmatch(ARGV[i + 2], '[^,]+') do
                local s = v[f] and sub(v[f], 1, 1)
                if s ~= 'd' and s ~= 's' then ready = false end
                f = f + 1
            end
        end
        if ready then
            local name, to = ARGV[i], ARGV[i + 1]
            set[#set + 1] = 's:' .. name
            if stop then -- recorded, so that a later run of the job finds it
                set[#set + 1] = 'o 0 0 - - ' .. to
            elseif to == queue then
                open[#open + 1] = name
                set[#set + 1] = 'o 0 0 ' .. at .. ' - ' .. to
                news = news .. '\nstage.started ' .. at .. ' {"stage":"' .. name .. '","attempt":1,"progress":' .. progress .. '}'
            else
                set[#set + 1] = 'o 0 0 - - ' .. to
                new = new or {}
                if not new[to] then new[#new + 1] = to end
                new[to] = new[to] and new[to] .. ',' .. name or name
            end
        end
    end
    if done >= total then
        if stop then
            set[#set + 1] = 's:$end'
            set[#set + 1] = 'o 0 0 - - ' .. queue
        elseif result then
            finish = true
        else
            open[#open + 1] = '$end'
            set[#set + 1] = 's:$end'
            set[#set + 1] = 'o 0 0 ' .. at .. ' - ' .. queue
        end
    end
end
local usage = ARGV[more]
if usage and usage ~= '' then
    local a, b, c = match(usage, '(%-?%d+) (%-?%d+) (%-?%d+)')
    local x, y, z = match(call('HGET', KEYS[1], 'usage') or '0 0 0', '(%-?%d+) (%-?%d+) (%-?%d+)')
    set[#set + 1] = 'usage'
    set[#set + 1] = format('%.0f %.0f %.0f', a + x, b + y, c + z)
end

if #open > 0 and not new then -- the lane goes on
    call('HSET', KEYS[2], stage, ARGV[6])
    stages = #open == 1 and open[1] or table.concat(open, ',')
    local i = #set
    set[i + 1] = lane
    set[i + 2] = 'r ' .. queue .. ' ' .. claim .. ' ' .. fence .. ' ' .. rest .. ' 0 0 ' .. stages
    call('HSET', KEYS[1], unpack(set))
    if #gone > 0 then call('HDEL', KEYS[1], unpack(gone)) end
    local cut, last = find(news, '\n', 1, true), nil
    if not cut then
        last = call('RPUSH', KEYS[3], news)
    elseif not find(news, '\n', cut + 1, true) then
        last = call('RPUSH', KEYS[3], sub(news, 1, cut - 1), sub(news, cut + 1)) - 1
    else
        local list = {}
        for line in string.gmatch(news, '[^\n]+') do list[#list + 1] = line end
        last = call('RPUSH', KEYS[3], unpack(list)) - #list + 1
    end
    call('PUBLISH', sub(KEYS[1], 1, -5 - #id) .. 'watch:' .. id, format('%d\n', last) .. news)
    return {winding and 'STOP' or 'OK', stages, done > tonumber(ARGV[8]) and missing() or nil}
end

-- The usual end: the only lane's last stage, nothing else to look after.
if finish and not new and stage ~= '$end' then
    local w = call('HMGET', KEYS[1], 'lanes', 'keep', 'after', 'deadline', 'fp')
    if w[1] == ARGV[2] and find(KEYS[4], ':queue:' .. queue .. ':' .. match(claim, '^%S+'), 1, true) and not w[4] and not w[5] and not (w[3] and find(w[3], 'completed', 1, true)) then
        call('HSET', KEYS[2], stage, ARGV[6])
        local entry = match(claim, '%S+$')
        call('XACK', KEYS[4], 'workers', entry)
        call('XDEL', KEYS[4], entry)
        local over = 'job.completed ' .. at .. ' {"progress":100}'
        local last = call('RPUSH', KEYS[3], news, over)
        call('PUBLISH', sub(KEYS[1], 1, -5 - #id) .. 'watch:' .. id, format('%d\n', last - 1) .. news .. '\n' .. over)
        local i = #set
        set[i + 1], set[i + 2], set[i + 3], set[i + 4] = 'result', result, 'status', 'completed'
        set[i + 5], set[i + 6], set[i + 7], set[i + 8] = 'finished', at, 'events', format('%d', last)
        set[i + 9], set[i + 10], set[6] = 'lanes', '', '100'
        call('HSET', KEYS[1], unpack(set))
        call('HDEL', KEYS[1], lane, unpack(gone))
        local short, long = match(w[2], '^(%d+) (%d+)$')
        call('PEXPIRE', KEYS[1], long)
        call('PEXPIRE', KEYS[2], short)
        call('PEXPIRE', KEYS[3], short)
        return {'END'}
    end
end

-- The lane ends, or others begin.
local n = ARGV[2]
do
--@include base
--@include lanes
--@include ending
    for line in string.gmatch(news or '', '[^\n]+') do events[#events + 1] = line end
    local w = call('HMGET', KEYS[1], 'lanes', 'prio', 'pipeline', 'n', 'status')
    local lanes, last = w[1], tonumber(w[4])
    local ended = w[5] == 'completed' or w[5] == 'failed' or w[5] == 'cancelled'
    local own = #open == 0 and key('queue:' .. queue .. ':' .. match(claim, '^%S+'))
    if #open == 0 then lanes = lanes_without(lanes, n) end
    for i, to in ipairs(new or {}) do new[i] = {to, key('queue:' .. to .. ':' .. w[2])} end
    local e = not ended and #open == 0 and not new and lanes == '' and ending_read(stop, ARGV[more + 1] or ';0')
    if wanted then return wanted end
    if e and not finish and not stop then
        return redis.error_reply('ERR the commit of ' .. stage .. ' leaves the job without a lane')
    end
    if sub(stage, 1, 1) ~= '$' then call('HSET', KEYS[2], stage, ARGV[6]) end
    for _, pair in ipairs(new or {}) do
        last = last + 1
        set[#set + 1] = 'l:' .. last
        set[#set + 1] = 'q ' .. pair[1] .. ' ' .. w[2] .. ' ' .. entry_new(pair[2], last, w[3]) .. ' - - 0 0 0 ' .. new[pair[1]]
        lanes = lanes == '' and tostring(last) or lanes .. ',' .. last
    end
    if new then
        set[#set + 1] = 'n'
        set[#set + 1] = last
    end
    if #open == 0 then
        entry_end(own, match(claim, '%S+$'))
        gone[#gone + 1] = lane
    else
        stages = table.concat(open, ',')
        set[#set + 1] = lane
        set[#set + 1] = 'r ' .. queue .. ' ' .. claim .. ' ' .. fence .. ' ' .. rest .. ' 0 0 ' .. stages
    end
    if e then
        if finish then
            local i = #set
            set[i + 1], set[i + 2], set[i + 3], set[i + 4] = 'result', result, 'progress', '100'
        end
        e.progress = progress
        local error = e.status == 'failed' and call('HGET', KEYS[1], 'error') or nil
        ending_write(e, at, last, error, set, gone)
        return {'END'}
    end
    set[#set + 1] = 'lanes'
    set[#set + 1] = lanes
    if #open == 0 and not ended then
        local status = lanes_status(w[1], n)
        set[#set + 1] = 'status'
        set[#set + 1] = new and status == 'waiting' and 'queued' or status
    end
    call('HSET', KEYS[1], unpack(set))
    if #gone > 0 then call('HDEL', KEYS[1], unpack(gone)) end
    if #events > 0 then publish() end
end
if #open == 0 then return {'END'} end
return {winding and 'STOP' or 'OK', stages, done > tonumber(ARGV[8]) and missing() or nil}
