#!lua flags=allow-oom
-- erase: deletes a job of which nothing runs. Keys: job out log due dead dead:info jobs, names.
--@include base
--@include lane
--@include lanes
--@include closing
local v = call('HMGET', KEYS[1], 'status', 'lanes', 'pipeline', 'held')
if not v[1] then
    call('ZREM', KEYS[7], id)
    call('ZREM', KEYS[5], id)
    return {'NONE'}
end
local c = closing_read(v[2], '', v[3], false)
if #c.ring > 0 then return {'BUSY'} end
local held = v[4] and key('dead:held')
if wanted then return wanted end
if held then call('ZREM', held, v[4] .. ' ' .. id) end
closing_write(c, v[3], {}, {})
call('ZREM', KEYS[4], 'x ' .. id, 'd ' .. id)
call('ZREM', KEYS[5], id)
call('ZREM', KEYS[7], id)
call('DEL', KEYS[1], KEYS[2], KEYS[3])
call('PUBLISH', base .. 'watch:' .. id, 'gone')
return {'ERASED'}
