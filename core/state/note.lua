#!lua flags=allow-oom
-- note: notes a child of a running stage before it is submitted. Keys: job out log.
--@include base
--@include lane
--@include mine
local stage, line = ARGV[4], ARGV[5] .. ' ' .. ARGV[6] .. ' ' .. ARGV[7] .. '\n'
local v = call('HMGET', KEYS[1], 'l:' .. n, 'stop', 'calls:' .. stage, 's:' .. stage, 'status')
if not mine(v[1]) or not v[4] then return {'LOST'} end
local ended = v[5] == 'completed' or v[5] == 'failed' or v[5] == 'cancelled' -- its follow-up goes on
if not ended and (v[2] == 'cancelled' or v[2] == 'deadline') then return {'STOP'} end
if not v[3] or not string.find(v[3], line, 1, true) then
    local record = v[4] or ''
    call('HSET', KEYS[1], 'calls:' .. stage, (v[3] or '') .. line, 's:' .. stage,
         sub(record, -1) == '*' and record or record .. ' *')
end
return {'OK'}
