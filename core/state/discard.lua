#!lua flags=allow-oom
-- discard: takes a job out of the dead letters; one that was due to run again by itself has its end with that.
-- Keys: job out log due dead dead:info, names.
--@include base
--@include giveup
local g, fp = giveup_read(), call('HGET', KEYS[1], 'held')
local held = fp and key('dead:held')
if wanted then return wanted end
local removed = call('ZREM', KEYS[5], id)
giveup_write(g, time())
if held then
    call('ZREM', held, fp .. ' ' .. id)
    call('HDEL', KEYS[1], 'held')
end
-- So that a failed job which is no dead letter is known to be none on purpose (fsck).
if removed == 1 and call('EXISTS', KEYS[1]) == 1 then call('HSET', KEYS[1], 'discarded', 1) end
return removed
