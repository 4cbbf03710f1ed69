#!lua flags=allow-oom
-- park: a running lane waits and comes back. Keys: job out log due dead dead:info, the lane's stream.
--@include base
--@include lane
--@include lanes
--@include mine
local v = call('HMGET', KEYS[1], 'l:' .. n, 'lanes', 'status')
local l = mine(v[1])
if not l then return {'LOST'} end
local delay = tonumber(ARGV[4])
local own = key('queue:' .. l.queue .. ':' .. l.class)
if wanted then return wanted end
local due = later(time(), delay)
entry_end(own, l.entry)
call('ZADD', KEYS[4], due, 'l ' .. id .. ' ' .. n)
l.state, l.entry, l.fence, l.worker = 'd', due, '-', '-'
local set = {'l:' .. n, lane_text(l)}
if v[3] == 'processing' then
    set[3] = 'status'
    set[4] = lanes_status(v[2], n)
end
call('HSET', KEYS[1], unpack(set))
return {'OK'}
