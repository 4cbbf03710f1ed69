#!lua flags=allow-oom
-- commit: the checkpoint: a stage's output and what comes next. Keys: job out log due dead dead:info, streams (the lane's own first).
local streams = 7
--@include base
--@include lane
--@include ending
local n, fence, stage, outcome = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local total, count = tonumber(ARGV[7]), tonumber(ARGV[14])

-- Successors: NAME QUEUE NEEDS (separated by `,`, without this stage) from ARGV[15].
local fields = {'l:' .. n, 's:' .. stage, 'stop', 'done', 'progress', 'usage', 'calls:' .. stage, 'steps:' .. stage, 'lanes',
                'prio', 'pipeline', 'n', 'status'}
for i = 15, 12 + 3 * count, 3 do
    fields[#fields + 1] = 's:' .. ARGV[i]
    for need in string.gmatch(ARGV[i + 2], '[^,]+') do fields[#fields + 1] = 's:' .. need end
end
local v = call('HMGET', KEYS[1], unpack(fields))
if not v[1] then return {'LOST'} end
local state, queue, class, entry, holder, rest, stages = match(v[1], '^(%a) (%S+) (%S+) (%S+) (%S+) (.+) (%S*)$')
if state ~= 'r' or holder ~= fence then return {'LOST'} end
local stop, done = v[3], tonumber(v[4] or 0)
local ended = v[13] == 'completed' or v[13] == 'failed' or v[13] == 'cancelled'

-- Outputs that this worker does not have, when stages have finished elsewhere.
local function missing(now_done)
    local outputs = {}
    if now_done <= tonumber(ARGV[8]) then return outputs end
    local have, names, records = ',' .. ARGV[9] .. ',' .. stage .. ',', {}, {}
    for _, name in ipairs(call('HKEYS', KEYS[2])) do
        if not string.find(name, '#', 1, true) and not string.find(have, ',' .. name .. ',', 1, true) then
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

local open, found = {}, false
for name in string.gmatch(stages, '[^,]+') do
    if name == stage then found = true else open[#open + 1] = name end
end
local winding = stop == 'cancelled' or stop == 'deadline'
if not found then
    return {winding and 'STOP' or 'OK', stages, missing(done)}
end

-- Decide.
local at = time()
local set, gone, body = {}, {}, ''
local progress, lanes, last = tonumber(v[5] or 0), v[9], tonumber(v[12])
local attempts, throttled, started = match(v[2], '^%a (%d+) (%d+) (%S+)')
local finish, new = false, {}
if stage == '$end' then
    if ARGV[11] == '1' and not stop then
        finish = true
        gone[1] = 's:$end'
    elseif not stop then
        return redis.error_reply('ERR the commit of $end needs a result')
    end
elseif stage == '$after' then
    gone[1] = 's:$after'
else
    done = done + 1
    local percent = floor(done * 100 / total)
    if percent > 99 then percent = 99 end
    if percent > progress then progress = percent end
    set = {'s:' .. stage, outcome .. ' ' .. (outcome == 'd' and attempts + 1 or attempts) .. ' ' .. throttled .. ' ' .. started ..
           ' ' .. at .. ' ' .. queue, 'done', done, 'progress', progress}
    event('stage.completed', at, '{"stage":"' .. stage .. '","attempt":' .. (attempts + 1) ..
                                 (outcome == 's' and ',"skipped":true' or '') .. ',"progress":' .. progress .. '}')
    local f = 14
    for i = 15, 12 + 3 * count, 3 do
        local ready = not v[f]
        f = f + 1
        for _ in string.gmatch(ARGV[i + 2], '[^,]+') do
            local s = v[f] and sub(v[f], 1, 1)
            if s ~= 'd' and s ~= 's' then ready = false end
            f = f + 1
        end
        if ready then
            local name, to = ARGV[i], ARGV[i + 1]
            set[#set + 1] = 's:' .. name
            if stop then -- recorded, so that a later run of the job finds it
                set[#set + 1] = 'o 0 0 - - ' .. to
            elseif to == queue then
                open[#open + 1] = name
                set[#set + 1] = 'o 0 0 ' .. at .. ' - ' .. to
                event('stage.started', at, '{"stage":"' .. name .. '","attempt":1,"progress":' .. progress .. '}')
            else
                set[#set + 1] = 'o 0 0 - - ' .. to
                if not new[to] then
                    new[to] = name
                    new[#new + 1] = {queue = to, stream = key('queue:' .. to .. ':' .. v[10])}
                else
                    new[to] = new[to] .. ',' .. name
                end
            end
        end
    end
    if done >= total then
        if stop then
            set[#set + 1] = 's:$end'
            set[#set + 1] = 'o 0 0 - - ' .. queue
        elseif ARGV[11] == '1' then
            finish = true
        else
            open[#open + 1] = '$end'
            set[#set + 1] = 's:$end'
            set[#set + 1] = 'o 0 0 ' .. at .. ' - ' .. queue
        end
    end
end
local own = #open == 0 and key('queue:' .. queue .. ':' .. class)
if #open == 0 then lanes = lanes_without(lanes, n) end
local e = not ended and #open == 0 and #new == 0 and lanes == '' and ending_read(stop, ARGV[13])
if wanted then return wanted end
if e and not finish and not stop then return redis.error_reply('ERR the commit of ' .. stage .. ' leaves the job without a lane') end

-- Write.
if stage ~= '$end' and stage ~= '$after' then
    call('HSET', KEYS[2], stage, ARGV[6])
    if v[7] then gone[#gone + 1] = 'calls:' .. stage end
    if v[8] then
        gone[#gone + 1] = 'steps:' .. stage
        for name in string.gmatch(v[8], '[^,]+') do call('HDEL', KEYS[2], stage .. '#' .. name) end
    end
end
if ARGV[12] ~= '' then
    local a, b, c = match(ARGV[12], '(%-?%d+) (%-?%d+) (%-?%d+)')
    local x, y, z = match(v[6] or '0 0 0', '(%-?%d+) (%-?%d+) (%-?%d+)')
    set[#set + 1] = 'usage'
    set[#set + 1] = string.format('%.0f %.0f %.0f', a + x, b + y, c + z)
end
for _, lane in ipairs(new) do
    last = last + 1
    set[#set + 1] = 'l:' .. last
    set[#set + 1] = 'q ' .. lane.queue .. ' ' .. v[10] .. ' ' .. entry_new(lane.stream, last, v[11]) .. ' - - 0 0 0 ' ..
                    new[lane.queue]
    lanes = lanes == '' and tostring(last) or lanes .. ',' .. last
end
if #new > 0 then
    set[#set + 1] = 'n'
    set[#set + 1] = last
end
if #open == 0 then
    entry_end(own, entry)
    gone[#gone + 1] = 'l:' .. n
else
    set[#set + 1] = 'l:' .. n
    set[#set + 1] = 'r ' .. queue .. ' ' .. class .. ' ' .. entry .. ' ' .. fence .. ' ' .. rest .. ' ' .. table.concat(open, ',')
end
if e then
    if finish then
        set[#set + 1] = 'result'
        set[#set + 1] = ARGV[10]
        set[#set + 1] = 'progress'
        set[#set + 1] = 100
    end
    e.progress = progress
    local error = e.status == 'failed' and call('HGET', KEYS[1], 'error') or nil
    ending_write(e, at, last, error, set, gone)
    return {'END'}
end
if #open == 0 or #new > 0 then
    set[#set + 1] = 'lanes'
    set[#set + 1] = lanes
end
if #open == 0 and not ended then
    local status = lanes_status(v[9], n)
    set[#set + 1] = 'status'
    set[#set + 1] = #new > 0 and status == 'waiting' and 'queued' or status
end
if #set > 0 then call('HSET', KEYS[1], unpack(set)) end
if #gone > 0 then call('HDEL', KEYS[1], unpack(gone)) end
if #events > 0 then publish() end
if #open == 0 then return {'END'} end
return {winding and 'STOP' or 'OK', table.concat(open, ','), missing(done)}
