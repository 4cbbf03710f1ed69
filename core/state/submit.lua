#!lua
-- submit: makes a job, or says how the one of that id stands. Keys: job out log jobs, names.
--@include base
local pipeline, digest, input, req, mode, prio = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local delay, ttl, limit = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
if not delay then delay = math.max(0, sub(ARGV[8], 2) - time()) end -- `@INSTANT`: this server's clock decides

local old = call('HMGET', KEYS[1], 'status', 'digest', 'req', 'tomb', 'pipeline', 'round')
local status = old[1]
if status then
--@include lane
--@include lanes
--@include closing
--@include request
--@include rerun
    local round = tonumber(old[6])
    if old[5] ~= pipeline or (mode == 'plain' and old[2] ~= digest) then return {'CONFLICT', status, 0} end
    local again = false
    if mode == 'plain' then
        again = status == 'failed' and old[3] ~= req
    elseif mode == 'call' then
        again = (status == 'failed' or status == 'cancelled') and request_later(req, old[3])
    end
    if not again then return {'SAME', status, round} end
    local r = rerun_read({})
    if wanted then return wanted end
    if not r then return {'SAME', status, round} end
    return {'AGAIN', 'queued', rerun_write(r, time(), req, ttl, true, 0)}
end
if old[4] then
--@include request
    if mode == 'call' and not request_later(req, old[3]) then return {'SAME', 'cancelled', 0} end
end

-- First stages: NAME QUEUE pairs from ARGV[16]; a lane for each queue.
local queues, by, seen = {}, {}, {}
for i = 16, #ARGV, 2 do
    local queue = ARGV[i + 1]
    if not by[queue] then
        queues[#queues + 1] = queue
        by[queue] = ARGV[i]
        seen[queue] = key('queue:' .. queue .. ':' .. prio)
        if limit > 0 and mode ~= 'call' then
            local high, normal, low = key('queue:' .. queue .. ':high'), key('queue:' .. queue .. ':normal'),
                                      key('queue:' .. queue .. ':low')
            if not wanted and call('XLEN', high) + call('XLEN', normal) + call('XLEN', low) >= limit then
                return {'FULL', '', 0}
            end
        end
    else
        by[queue] = by[queue] .. ',' .. ARGV[i]
    end
end
local due_key = (delay > 0 or ttl > 0) and key('due')
if wanted then return wanted end

local at = time()
if old[4] then call('DEL', KEYS[1]) end
call('DEL', KEYS[2], KEYS[3]) -- of a job that is gone, where they outlived it
local set = {'pipeline', pipeline, 'digest', digest, 'input', input, 'prio', prio, 'round', 1, 'req', req, 'created', at,
             'keep', ARGV[15], 'n', #queues, 'status', delay > 0 and 'waiting' or 'queued'}
local optional = {'meta', ARGV[11], 'owner', ARGV[12], 'ancestors', ARGV[13], 'after', ARGV[14]}
for i = 1, 8, 2 do
    if optional[i + 1] ~= '' then
        set[#set + 1] = optional[i]
        set[#set + 1] = optional[i + 1]
    end
end
local lanes = {}
for n, queue in ipairs(queues) do
    local head
    if delay > 0 then
        local due = later(at, delay)
        call('ZADD', due_key, due, 'l ' .. id .. ' ' .. n)
        head = 'd ' .. queue .. ' ' .. prio .. ' ' .. due
    else
        head = 'q ' .. queue .. ' ' .. prio .. ' ' .. call('XADD', seen[queue], '*', 'j', id, 'l', n, 'p', pipeline)
    end
    lanes[n] = n
    set[#set + 1] = 'l:' .. n
    set[#set + 1] = head .. ' - - 0 0 0 ' .. by[queue]
end
for i = 16, #ARGV, 2 do
    set[#set + 1] = 's:' .. ARGV[i]
    set[#set + 1] = 'o 0 0 - - ' .. ARGV[i + 1]
end
set[#set + 1] = 'lanes'
set[#set + 1] = table.concat(lanes, ',')
if ttl > 0 then
    local deadline = later(at, ttl)
    call('ZADD', due_key, deadline, 'x ' .. id)
    set[#set + 1] = 'deadline'
    set[#set + 1] = deadline
    set[#set + 1] = 'ttl'
    set[#set + 1] = ttl
end
call('HSET', KEYS[1], unpack(set))
call('ZADD', KEYS[4], at, id)
event('job.queued', at, '{"pipeline":"' .. pipeline .. '","round":1,"progress":0}')
publish()
return {'NEW', delay > 0 and 'waiting' or 'queued', 1}
