#!lua flags=allow-oom
-- tell: events of a running stage. Keys: job out log. From ARGV[5]: live (1: without a number) KIND JSON.
--@include base
--@include lane
--@include mine
local progress = tonumber(ARGV[4])
local v = call('HMGET', KEYS[1], 'l:' .. n, 'stop', 'progress', 'told', 'status')
if not mine(v[1]) then return {'LOST'} end
if v[5] == 'completed' or v[5] == 'failed' or v[5] == 'cancelled' then return {'OK'} end -- the end of a job stays its last event
local at, told, live = time(), tonumber(v[4] or 0), {}
local now = tonumber(v[3] or 0)
if progress >= 0 and progress > now then now = progress > 99 and 99 or progress end
for i = 5, #ARGV, 3 do
    local body = ARGV[i + 2]
    body = sub(body, 1, -2) .. (body == '{}' and '' or ',') .. '"progress":' .. now .. '}'
    if ARGV[i] == '1' or told >= 1000 then
        live[#live + 1] = ARGV[i + 1] .. ' ' .. at .. ' ' .. body
    else
        told = told + 1
        event(ARGV[i + 1], at, body)
    end
end
if #live > 0 then call('PUBLISH', base .. 'watch:' .. id, '0\n' .. table.concat(live, '\n')) end
local set = {}
if #events > 0 then
    publish()
    set = {'told', told}
end
if now ~= tonumber(v[3] or 0) then
    set[#set + 1] = 'progress'
    set[#set + 1] = now
end
if #set > 0 then call('HSET', KEYS[1], unpack(set)) end
if v[2] == 'cancelled' or v[2] == 'deadline' then return {'STOP'} end
return {'OK'}
