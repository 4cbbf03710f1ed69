#!lua flags=allow-oom
-- fail: a failed attempt of a stage. Keys: job out log due dead dead:info, streams (the lane's own first).
--@include base
--@include lane
--@include lanes
--@include mine
--@include ending
--@include closing
local stage, class, code, error = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local delay, most, usage, conf = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10], ARGV[11]

local v = call('HMGET', KEYS[1], 'l:' .. n, 's:' .. stage, 'stop', 'lanes', 'n', 'status', 'pipeline', 'progress', 'error',
               'usage')
local l = mine(v[1])
if not l then return {'LOST'} end
local stop, lanes, last = v[3], v[4], tonumber(v[5])
local ended = v[6] == 'completed' or v[6] == 'failed' or v[6] == 'cancelled'
local winding = (stop == 'cancelled' or stop == 'deadline') and not ended
local open, found = {}, false
for name in string.gmatch(l.stages, '[^,]+') do
    if name == stage then found = true else open[#open + 1] = name end
end
if not found then return {winding and 'STOP' or 'OK', l.stages, {}} end

local at = time()
local attempts, throttled, started, flag = match(v[2], '^%a (%d+) (%d+) (%S+) %S+ %S+( ?%*?)$')
attempts, throttled = tonumber(attempts), tonumber(throttled)
local again = (not stop or ended) and (class == 'throttled' or class == 'retry' and attempts + 1 < most)
if class == 'throttled' then throttled = throttled + 1 else attempts = attempts + 1 end

-- What closes, which keys that takes.
local own = #open == 0 and key('queue:' .. l.queue .. ':' .. l.class)
local c = not again and not stop and not ended and closing_read(lanes, n, v[7], false)
local left = lanes_without(c and closing_lanes(c) .. (#open > 0 and ',' .. n or '') or lanes, #open == 0 and n or '')
local e = not again and not ended and left == '' and ending_read(stop or 'failed', conf)
if wanted then return wanted end

local set, gone = {}, {}
if usage ~= '' then
    local a, b, d = match(usage, '(%-?%d+) (%-?%d+) (%-?%d+)')
    local x, y, z = match(v[10] or '0 0 0', '(%-?%d+) (%-?%d+) (%-?%d+)')
    set = {'usage', string.format('%.0f %.0f %.0f', a + x, b + y, d + z)}
end
local about = '{"stage":"' .. stage .. '","attempt":' .. attempts .. ',"error":' .. error .. ',"progress":' .. (v[8] or 0)
if #open == 0 then
    entry_end(own, l.entry)
    gone[1] = 'l:' .. n
else
    l.stages = table.concat(open, ',')
    set[#set + 1] = 'l:' .. n
    set[#set + 1] = lane_text(l)
end
set[#set + 1] = 's:' .. stage
if again then
    local due = later(at, delay)
    last = last + 1
    set[#set + 1] = 'o ' .. attempts .. ' ' .. throttled .. ' ' .. started .. ' - ' .. l.queue .. flag
    set[#set + 1] = 'l:' .. last
    set[#set + 1] = 'd ' .. l.queue .. ' ' .. l.class .. ' ' .. due .. ' - - ' .. l.crashes .. ' ' .. l.takeovers ..
                    ' 0 ' .. stage
    set[#set + 1] = 'n'
    set[#set + 1] = last
    call('ZADD', KEYS[4], due, 'l ' .. id .. ' ' .. last)
    left = left == '' and tostring(last) or left .. ',' .. last
    if not ended then -- the end of a job stays its last event
        event('stage.retrying', at, about .. ',"delay_ms":' .. delay .. ',"throttled":' ..
                                    (class == 'throttled' and 'true' or 'false') .. '}')
    end
elseif stage == '$after' then
    for _, name in ipairs({'s:$after', 'calls:$after', 'steps:$after'}) do gone[#gone + 1] = name end
    for name in string.gmatch(call('HGET', KEYS[1], 'steps:$after') or '', '[^,]+') do call('HDEL', KEYS[2], '$after#' .. name) end
    table.remove(set)
else
    set[#set + 1] = 'f ' .. attempts .. ' ' .. throttled .. ' ' .. started .. ' ' .. at .. ' ' .. l.queue
    gone[#gone + 1] = 'calls:' .. stage
    event('stage.failed', at, about .. '}')
    if not stop and not ended then
        for _, value in ipairs({'stop', 'failed', 'error', error, 'class', class, 'fp', v[7] .. '/' .. stage .. '/' .. code}) do
            set[#set + 1] = value
        end
        closing_write(c, v[7], set, gone)
    end
end
if e then
    if not stop then
        e.class = class
        e.fp = v[7] .. '/' .. stage .. '/' .. code
    end
    ending_write(e, at, last, v[9] or (not stop and error) or nil, set, gone)
    return {'END'}
end
set[#set + 1] = 'lanes'
set[#set + 1] = left
if not ended and #open == 0 then
    set[#set + 1] = 'status'
    set[#set + 1] = c and closing_status(c) or lanes_status(lanes, n)
end
call('HSET', KEYS[1], unpack(set))
if #gone > 0 then call('HDEL', KEYS[1], unpack(gone)) end
if #events > 0 then publish() end
if #open == 0 then return {'END'} end
return {winding and 'STOP' or 'OK', l.stages, {}}
