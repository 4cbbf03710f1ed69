-- base: names, time, events. Keys of a script on a job: job, out, log, then others, which `key` finds by name.
local call, match, sub, find = redis.call, string.match, string.sub, string.find
local id = ARGV[1]
local base = sub(KEYS[1], 1, -5 - #id)

-- Milliseconds of the server, as text: numbers are slow to print.
local function time()
    local t = call('TIME')
    return t[1] .. sub('000000' .. t[2], -6, -4)
end
local function later(at, ms)
    return string.format('%.0f', at + (ms < 50 and 50 or ms))
end

-- A key that may or may not be declared. When one was not: `if wanted then return wanted end` before the first write.
local wanted
local function key(name)
    local full = base .. name
    for i = 4, #KEYS do
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
    call('PUBLISH', base .. 'watch:' .. id, string.format('%d\n', last - count + 1) .. table.concat(events, '\n'))
    return last
end
