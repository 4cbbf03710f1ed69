#!lua flags=allow-oom
-- discard: takes a job out of the dead letters. Keys: job out log due dead.
--@include base
local removed = call('ZREM', KEYS[5], id)
call('ZREM', KEYS[4], 'd ' .. id)
call('HDEL', KEYS[1], 'next')
return removed
