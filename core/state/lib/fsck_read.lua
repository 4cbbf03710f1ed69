-- fsck_read: a job's hash to tables. `job`: plain fields (not input and result); S: stages; L: lanes; bad: fields of
-- either that cannot be read, with their text.
local job, S, L, bad, texts = {}, {}, {}, {}, {}
local function stage_read(text)
    local state, attempts, throttled, started, finished, queue, flag =
        match(text, '^([odsf]) (%d+) (%d+) ([%d-]+) ([%d-]+) ([%w_.-]+)( ?%*?)$')
    if not state or not is_number(attempts) or not is_number(throttled) then return nil end
    if not (started == '-' or is_number(started)) or not (finished == '-' or is_number(finished)) then return nil end
    return {state = state, attempts = attempts, throttled = throttled, started = started, finished = finished,
            queue = queue, flag = flag}
end
local function stage_text(s)
    return s.state .. ' ' .. s.attempts .. ' ' .. s.throttled .. ' ' .. s.started .. ' ' .. s.finished .. ' ' .. s.queue .. s.flag
end
local classes = {recovered = true, call = true, high = true, normal = true, low = true}
local function lane_parse(text)
    if #text > 16384 or not match(text, '^[qrdh] %S+ %S+ %S+ %S+ %S+ %d+ %d+ %d+ %S+$') then return nil end
    local l = lane_read(text)
    if not l or not l.crashes or #l.queue > 64 or not match(l.queue, '^[%w_.-]+$') or not classes[l.class] then return nil end
    if l.state == 'd' and not is_number(l.entry) then return nil end
    if l.crashes > 1e6 or l.takeovers > 1e6 or not is_number(l.refused) or l.fence == '-' and l.state == 'r' then return nil end
    return l
end
local function job_read()
    local names, fields = call('HKEYS', KEYS[1]), {}
    for _, name in ipairs(names) do
        if name ~= 'input' and name ~= 'result' then fields[#fields + 1] = name end
    end
    for from = 1, #fields, 500 do
        local to = from + 499 < #fields and from + 499 or #fields
        local values = call('HMGET', KEYS[1], unpack(fields, from, to))
        for i = from, to do
            local name, text = fields[i], values[i - from + 1]
            local kind, rest = match(name, '^([sl]):(.+)$')
            if not kind then
                job[name] = text
            else
                texts[name] = text
                local read
                if kind == 's' then
                    read = stage_read(text)
                    if read then S[rest] = read end
                else
                    read = is_number(rest) and lane_parse(text)
                    if read then L[rest] = read end
                end
                if not read then bad[name] = text end
            end
        end
    end
end
-- Whether a field holds JSON; long ones are taken on trust, for parsing them would take too long.
local function holds_json(name)
    local size = call('HSTRLEN', KEYS[1], name)
    if size == 0 then return false end
    if size > 4096 then return true end
    return (pcall(cjson.decode, call('HGET', KEYS[1], name)))
end
