-- back: gives a running lane back to its queue, in class recovered.
local function lane_back(l, own, to, lanes, status)
    entry_end(own, l.entry)
    l.state, l.class, l.fence, l.worker = 'q', 'recovered', '-', '-'
    l.entry = entry_new(to, n, call('HGET', KEYS[1], 'pipeline'))
    local set = {'l:' .. n, lane_text(l)}
    if status == 'processing' then
        local others = lanes_status(lanes, n)
        set[3] = 'status'
        set[4] = others == 'waiting' and 'queued' or others
    end
    call('HSET', KEYS[1], unpack(set))
end
