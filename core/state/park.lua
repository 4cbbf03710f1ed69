#!lua flags=allow-oom
-- park: a running lane waits and comes back; each time for twice as long, up to 60 s (30 s for short delays). Keys: job
-- out log due dead dead:info, the lane's stream.
--@include base
--@include lane
--@include lanes
--@include mine
local v = call('HMGET', KEYS[1], 'l:' .. n, 'lanes', 'status', 'stop')
local l = mine(v[1])
if not l then return {'LOST'} end
local delay = tonumber(ARGV[4])
local own = key('queue:' .. l.queue .. ':' .. l.class)
if wanted then return wanted end
local times = tonumber(l.refused)
local due = later(time(), math.max(delay, math.min(delay * 2 ^ math.min(times, 10), delay < 5000 and 30000 or 60000)))
local ended = v[3] == 'failed' or v[3] == 'cancelled' or v[3] == 'completed' -- what stopped it is not for its follow-up
if not ended and (v[4] == 'cancelled' or v[4] == 'deadline') then due = later(time(), 0) end -- to be wound up at once
l.refused = times + 1
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
