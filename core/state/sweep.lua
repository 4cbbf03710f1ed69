#!lua flags=allow-oom
-- sweep: takes entries whose lease is over. Keys: their stream, worker:NAME of who asks. ARGV: worker, lease, entries.
-- After an outage of Redis every lease looks over, and so does this worker's own registration: who has not renewed it
-- lately, and without a pause for a whole lease, does not judge others; it takes nothing.
local lease = tonumber(ARGV[2])
if lease > 0 then
    local t = redis.call('TIME')
    local since, left = redis.call('HGET', KEYS[2], 'since'), redis.call('PTTL', KEYS[2])
    if not since or left < 1.4 * lease or t[1] * 1000 + math.floor(t[2] / 1000) - since < lease then return {} end
end
local words = {}
for i = 3, #ARGV do words[i - 2] = ARGV[i] end
return redis.call('XCLAIM', KEYS[1], 'workers', ARGV[1], lease, unpack(words))
