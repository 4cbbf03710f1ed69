#!lua flags=allow-oom
-- renew: keeps the leases of a worker's lanes. Keys: the worker's registration, then job and stream of each lane. ARGV:
-- worker, instance, lease, then number, fence and entry of each lane.
local call, match = redis.call, string.match
local worker, reply = ARGV[1], {}
call('HSET', KEYS[1], 'instance', ARGV[2])
call('PEXPIRE', KEYS[1], 2 * tonumber(ARGV[3]))
for i = 1, (#KEYS - 1) / 2 do
    local job, stream, a = KEYS[2 * i], KEYS[2 * i + 1], 3 * i + 1
    local v = call('HMGET', job, 'l:' .. ARGV[a], 'stop', 'status')
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
