#!lua
-- step: stores a partial outcome of a running stage. Keys: job out log.
--@include base
--@include lane
--@include mine
local stage, name = ARGV[4], ARGV[5]
local v = call('HMGET', KEYS[1], 'l:' .. n, 'stop', 'steps:' .. stage, 's:' .. stage)
local l = mine(v[1])
if not l or not v[4] then return {'LOST'} end
call('HSET', KEYS[2], stage .. '#' .. name, ARGV[6])
if not string.find(',' .. (v[3] or '') .. ',', ',' .. name .. ',', 1, true) then
    call('HSET', KEYS[1], 'steps:' .. stage, v[3] and v[3] .. ',' .. name or name, 's:' .. stage,
         sub(v[4], -1) == '*' and v[4] or v[4] .. ' *')
end
if v[2] == 'cancelled' or v[2] == 'deadline' then return {'STOP'} end
return {'OK'}
