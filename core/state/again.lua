#!lua
-- again: runs a failed or cancelled job again. Keys: job out log due dead dead:info, names. ARGV: id, req, ttl, fresh,
-- then stages to reset.
--@include base
--@include lane
--@include lanes
--@include closing
--@include rerun
local req = ARGV[2]
local v = call('HMGET', KEYS[1], 'status', 'req', 'tries')
local status = v[1]
if not status then return {'NONE'} end
if v[2] == req then return {'SAME'} end
if status ~= 'failed' and status ~= 'cancelled' then return {'ENDED'} end
local reset = {}
for i = 5, #ARGV do reset[#reset + 1] = ARGV[i] end
local r = rerun_read(reset)
if not r then return {'ENDED'} end
if wanted then return wanted end
rerun_write(r, time(), req, tonumber(ARGV[3]), ARGV[4] == '1', 0)
return {'AGAIN'}
