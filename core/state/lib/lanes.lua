-- lanes: the list of a job's lanes, and entries of streams.
-- `lanes` (`1,3`) without lane n.
local function lanes_without(lanes, n)
    local rest = {}
    for k in string.gmatch(lanes or '', '%d+') do
        if k ~= n then rest[#rest + 1] = k end
    end
    return table.concat(rest, ',')
end
-- The status that the other lanes (all but n) give; processing, queued or waiting.
local function lanes_status(lanes, n)
    local fields = {}
    for k in string.gmatch(lanes or '', '%d+') do
        if k ~= n then fields[#fields + 1] = 'l:' .. k end
    end
    local status = 'waiting'
    if #fields == 0 then return status end
    for _, text in ipairs(call('HMGET', KEYS[1], unpack(fields))) do
        local state = sub(text or 'd', 1, 1)
        if state == 'r' then return 'processing' end
        if state == 'q' then status = 'queued' end
    end
    return status
end
local function entry_end(stream, entry)
    call('XACK', stream, 'workers', entry)
    call('XDEL', stream, entry)
end
local function entry_new(stream, n, pipeline)
    return call('XADD', stream, '*', 'j', id, 'l', n, 'p', pipeline)
end
