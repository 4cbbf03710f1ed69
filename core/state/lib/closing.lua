-- closing: closes lanes that are not running, when a job stops. closing_read looks and names keys, closing_write writes.
-- With `children` a lane that has noted called children goes to class recovered instead: a worker has to cancel them.
local function closing_read(lanes, except, pipeline, children)
    local c = {close = {}, move = {}, keep = {}, ring = {}}
    for n in string.gmatch(lanes or '', '%d+') do
        if n ~= except then
            local l = lane_read(call('HGET', KEYS[1], 'l:' .. n))
            l.n = n
            local calls = false
            if children then
                for stage in string.gmatch(l.stages, '[^,]+') do
                    if call('HEXISTS', KEYS[1], 'calls:' .. stage) == 1 then calls = true end
                end
            end
            if l.state == 'r' then
                c.keep[#c.keep + 1] = n
                c.ring[#c.ring + 1] = l
            elseif calls and l.state == 'q' and l.class == 'recovered' then
                c.keep[#c.keep + 1] = n
            else
                if l.state == 'q' then l.stream = key('queue:' .. l.queue .. ':' .. l.class) end
                if l.state == 'h' then l.held = key('held:' .. pipeline) end
                if l.state == 'd' then l.held = key('due') end
                if calls then
                    l.to = key('queue:' .. l.queue .. ':recovered')
                    c.move[#c.move + 1] = l
                    c.keep[#c.keep + 1] = n
                else
                    c.close[#c.close + 1] = l
                end
            end
        end
    end
    return c
end

local function closing_write(c, pipeline, set, gone)
    local function leave(l)
        if l.stream then entry_end(l.stream, l.entry) end
        if l.held then call('ZREM', l.held, 'l ' .. id .. ' ' .. l.n) end
    end
    for _, l in ipairs(c.close) do
        leave(l)
        gone[#gone + 1] = 'l:' .. l.n
    end
    for _, l in ipairs(c.move) do
        leave(l)
        l.state, l.class, l.fence = 'q', 'recovered', '-'
        l.entry = entry_new(l.to, l.n, pipeline)
        set[#set + 1] = 'l:' .. l.n
        set[#set + 1] = lane_text(l)
    end
    for _, l in ipairs(c.ring) do
        call('PUBLISH', base .. 'bell:' .. l.worker, 'stop ' .. id .. ' ' .. l.n)
    end
end
-- What is left of `lanes`.
local function closing_lanes(c)
    return table.concat(c.keep, ',')
end
local function closing_status(c)
    return #c.ring > 0 and 'processing' or #c.keep > 0 and 'queued' or 'waiting'
end
