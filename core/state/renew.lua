#!lua flags=allow-oom
-- renew: keeps the leases of a worker's lanes. Keys: the worker's registration, workers, then job and stream of each
-- lane. ARGV: worker, instance, lease, its queues, slots and how many of them are busy, then number, fence and entry of
-- each lane.
local call, match = redis.call, string.match
local worker, lease, reply = ARGV[1], tonumber(ARGV[3]), {}
local t = call('TIME')
local at = t[1] * 1000 + math.floor(t[2] / 1000)
call('HSET', KEYS[1], 'instance', ARGV[2], 'queues', ARGV[4], 'slots', ARGV[5], 'busy', ARGV[6])
-- `since`: renewed without a pause from then on (a renewal comes each third of a lease). See sweep. More than two leases
-- left: this server's clock is behind that of the one before.
local left = call('PTTL', KEYS[1])
if left < 1.4 * lease or left > 2 * lease then call('HSET', KEYS[1], 'since', string.format('%.0f', at)) end
call('PEXPIRE', KEYS[1], 2 * lease)
call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', at))
call('ZADD', KEYS[2], string.format('%.0f', at + 2 * lease), worker)
for i = 1, (#KEYS - 2) / 2 do
    local job, stream, a = KEYS[2 * i + 1], KEYS[2 * i + 2], 3 * i + 4
    local v = redis.pcall('HMGET', job, 'l:' .. ARGV[a], 'stop', 'status') -- an error: it is no hash, and has no lane
    local state, entry, fence = match(v[1] or '', '^(%a) %S+ %S+ (%S+) (%S+)')
    if state ~= 'r' or fence ~= ARGV[a + 1] then
        reply[i] = 'LOST'
    else
        redis.pcall('XCLAIM', stream, 'workers', worker, 0, entry, 'JUSTID')
        local ended = v[3] == 'failed' or v[3] == 'cancelled' or v[3] == 'completed'
        reply[i] = (v[2] == 'cancelled' or v[2] == 'deadline') and not ended and 'STOP' or 'OK'
    end
end
return reply
