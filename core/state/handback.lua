#!lua flags=allow-oom
-- handback: a lane goes back to its queue at once. Keys: job out log due dead dead:info, the lane's stream, its queue's
-- recovered.
--@include base
--@include lane
--@include lanes
--@include mine
--@include back
local v = call('HMGET', KEYS[1], 'l:' .. n, 'lanes', 'status')
local l = mine(v[1])
if not l then return {'LOST'} end
local own, to = key('queue:' .. l.queue .. ':' .. l.class), key('queue:' .. l.queue .. ':recovered')
if wanted then return wanted end
lane_back(l, own, to, v[2], v[3])
return {'OK'}
