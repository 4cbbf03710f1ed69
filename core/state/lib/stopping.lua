-- stopping: cancels a job or ends its time. Returns whether it has ended; nil when keys are wanted.
local function stop_job(v, stop, error, conf)
    local pipeline, lanes = v.pipeline, v.lanes
    local c = closing_read(lanes, '', pipeline, true)
    local left = closing_lanes(c)
    local e = left == '' and ending_read(stop, conf)
    if wanted then return nil end
    local set, gone = {'stop', stop}, {}
    if error then
        set[3] = 'error'
        set[4] = error
    end
    closing_write(c, pipeline, set, gone)
    if e then
        ending_write(e, time(), tonumber(v.n), error or v.error or nil, set, gone)
        return true
    end
    set[#set + 1] = 'lanes'
    set[#set + 1] = left
    set[#set + 1] = 'status'
    set[#set + 1] = closing_status(c)
    call('HSET', KEYS[1], unpack(set))
    if #gone > 0 then call('HDEL', KEYS[1], unpack(gone)) end
    return false
end
