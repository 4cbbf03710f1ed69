#!lua flags=allow-oom
-- drop: ends a lane of a job that was cancelled or is out of time; when Redis knows of no such thing (it has forgotten)
-- the lane goes back. Keys: job out log due dead dead:info, the lane's stream, its queue's recovered.
--@include base
--@include lane
--@include lanes
--@include mine
--@include ending
--@include back
local v = call('HMGET', KEYS[1], 'l:' .. n, 'lanes', 'status', 'stop', 'n', 'error')
local l = mine(v[1])
if not l then return {'LOST'} end
local stop = v[4]
local own = key('queue:' .. l.queue .. ':' .. l.class)
local ended = v[3] == 'failed' or v[3] == 'cancelled' or v[3] == 'completed' -- what stopped it is not for its follow-up
if ended or stop ~= 'cancelled' and stop ~= 'deadline' then
    local to = key('queue:' .. l.queue .. ':recovered')
    if wanted then return wanted end
    lane_back(l, own, to, v[2], v[3])
    return {'OK'}
end
local lanes = lanes_without(v[2], n)
local e = lanes == '' and ending_read(stop, ARGV[4])
if wanted then return wanted end
local gone, set = {'l:' .. n}, {}
for stage in string.gmatch(l.stages, '[^,]+') do gone[#gone + 1] = 'calls:' .. stage end
entry_end(own, l.entry)
if e then
    ending_write(e, time(), tonumber(v[5]), v[6] or nil, set, gone)
else
    call('HSET', KEYS[1], 'lanes', lanes, 'status', lanes_status(lanes, n))
    call('HDEL', KEYS[1], unpack(gone))
end
return {'END'}
