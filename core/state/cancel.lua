#!lua flags=allow-oom
-- cancel: ARGV[2] is a parent's req or empty, ARGV[3] how long a tombstone stands. Keys: job out log due dead dead:info, names.
--@include base
--@include lane
--@include lanes
--@include ending
--@include closing
--@include request
--@include stopping
local req, conf = ARGV[2], ARGV[4]
local v = call('HMGET', KEYS[1], 'status', 'req', 'stop', 'lanes', 'pipeline', 'n', 'tomb', 'error')
local status = v[1]
if not status then
    if req ~= '' and (not v[7] or request_later(req, v[2])) then
        call('HSET', KEYS[1], 'tomb', 1, 'req', req)
        call('PEXPIRE', KEYS[1], ARGV[3])
    end
    return {'NONE'}
end
local ended = status == 'completed' or status == 'failed' or status == 'cancelled'
if req ~= '' then
    if not request_same_parent(req, v[2]) then return {'ENDED'} end
    if ended and request_later(req, v[2]) then call('HSET', KEYS[1], 'req', req) end
    if request_later(v[2], req) then return {'ENDED'} end
end
if ended then return {status == 'cancelled' and 'CANCELLED' or 'ENDED'} end
local done = stop_job({pipeline = v[5], lanes = v[4], n = v[6], error = v[8]}, 'cancelled', nil, conf)
if wanted then return wanted end
return {done and 'CANCELLED' or 'CANCELLING'}
