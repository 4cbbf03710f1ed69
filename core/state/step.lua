#!lua flags=allow-oom
-- step: stores a partial outcome of a running stage. Keys: job out log. The reply's second part: how many steps of the
-- stage there are now.
--@include base
--@include lane
--@include mine
local stage, name = ARGV[4], ARGV[5]
local v = call('HMGET', KEYS[1], 'l:' .. n, 'stop', 'steps:' .. stage, 's:' .. stage, 'status')
local l = mine(v[1])
if not l or not v[4] then return {'LOST'} end
call('HSET', KEYS[2], stage .. '#' .. name, ARGV[6])
local ended = v[5] == 'completed' or v[5] == 'failed' or v[5] == 'cancelled'
if ended and call('PTTL', KEYS[2]) < 0 then call('PEXPIRE', KEYS[2], call('PTTL', KEYS[1])) end -- a follow-up's
local names = v[3] or ''
if not string.find(',' .. names .. ',', ',' .. name .. ',', 1, true) then
    names = v[3] and v[3] .. ',' .. name or name
    call('HSET', KEYS[1], 'steps:' .. stage, names, 's:' .. stage, sub(v[4], -1) == '*' and v[4] or v[4] .. ' *')
end
local _, commas = string.gsub(names, ',', '')
if not ended and (v[2] == 'cancelled' or v[2] == 'deadline') then return {'STOP', commas + 1} end
return {'OK', commas + 1}
