-- giveup: a failed job that was due to run again by itself will not. What was put off until its end happens now: the event
-- that ends watches, and the follow-up. giveup_read looks and names keys, giveup_write writes and publishes.
local function giveup_read()
    local v = call('HMGET', KEYS[1], 'status', 'next', 'after', 'error', 'progress', 'n', 'pipeline')
    key('due')
    if v[1] ~= 'failed' or not v[2] then return nil end
    local after = v[3] and find(v[3], 'failed', 1, true) and key('queue:default:normal')
    return {after = after, error = v[4] or 'null', progress = v[5] or '0', n = v[6], pipeline = v[7]}
end
local function giveup_write(g, at)
    call('ZREM', key('due'), 'd ' .. id)
    if not g then return end
    call('HDEL', KEYS[1], 'next')
    event('job.failed', at, '{"error":' .. g.error .. ',"progress":' .. g.progress .. '}')
    local set = {'events', string.format('%d', publish())}
    if g.after then
        local n = string.format('%d', g.n + 1)
        local entry = call('XADD', g.after, '*', 'j', id, 'l', n, 'p', g.pipeline)
        for _, value in ipairs({'l:' .. n, 'q default normal ' .. entry .. ' - - 0 0 0 $after', 's:$after', 'o 0 0 - - default',
                                'n', n, 'lanes', n}) do
            set[#set + 1] = value
        end
    end
    call('HSET', KEYS[1], unpack(set))
end
