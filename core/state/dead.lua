#!lua flags=no-writes
-- dead: what a list of dead letters shows of each job; nil for one that is none (any more). Keys: job hashes, at most 200.
local found = {}
for i, job in ipairs(KEYS) do
    local v = redis.pcall('HMGET', job, 'status', 'pipeline', 'class', 'fp', 'error', 'next')
    found[i] = false -- also of another type: fsck tells of it
    if not v.err and v[1] == 'failed' then
        -- In a string of the JSON these quotes would be escaped.
        local stage = string.match(v[5] or '', '"stage":"([^"]+)"')
        local record = stage and redis.call('HGET', job, 's:' .. stage)
        local attempts = record and string.match(record, '^%a (%d+)') or '0'
        found[i] = {v[2] or '', v[3] or '', v[4] or '', v[5] or '', v[6] or '', attempts}
    end
end
return found
