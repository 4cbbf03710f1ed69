-- base: names, time, events. A script sets `streams` (the first of KEYS that is found by name) before this.
local call, match, sub, floor = redis.call, string.match, string.sub, math.floor
local id = ARGV[1]
local base = sub(KEYS[1], 1, -5 - #id)

local function time()
    local t = call('TIME')
    return t[1] * 1000 + floor(t[2] / 1000)
end

-- A key that may or may not be declared. When one was not: `if wanted then return wanted end` before the first write.
local wanted
local function key(name)
    local full = base .. name
    for i = streams, #KEYS do
        if KEYS[i] == full then return full end
    end
    wanted = wanted or {'KEYS'}
    wanted[#wanted + 1] = name
end

-- Events are collected and written at once: `KIND AT JSON` in the log; `NUMBER` and the events, a line each, on the channel.
local events = {}
local function event(kind, at, body)
    events[#events + 1] = kind .. ' ' .. at .. ' ' .. body
end
local function publish()
    local count = #events
    if count == 0 then return call('LLEN', KEYS[3]) end
    local last = call('RPUSH', KEYS[3], unpack(events))
    call('PUBLISH', base .. 'watch:' .. id, (last - count + 1) .. '\n' .. table.concat(events, '\n'))
    return last
end
