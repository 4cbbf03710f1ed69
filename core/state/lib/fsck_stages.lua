-- fsck_stages: the stages against the lanes, the outputs and the pipeline's graph. `graph`: rows {name, queue, needs} in
-- the pipeline's order; nil: not known. `where`: stage to the lane that holds it.
local outs, where, lost = {}, {}, {}
local function stage_new(state, queue)
    return {state = state, attempts = '0', throttled = '0', started = '-', finished = '-', queue = queue or 'default', flag = ''}
end
local function stage_done(name, queue)
    local s = stage_new('d', graph and graph[name] and graph[name].queue or queue)
    s.attempts = '1'
    return s
end
-- What the lanes hold: each stage in one lane, with a record that is open.
local function stages_of_lanes(ended)
    for _, n in ipairs(lane_order) do
        local l, keep, changed = L[n], {}, false
        for name in string.gmatch(l.stages, '[^,]+') do
            local s, drop = S[name], nil
            if where[name] then
                drop = 'stage_twice'
            elseif (name == '$after') ~= ended then
                drop = ended and 'ended_lane' or 'stage_state'
            elseif not s and bad['s:' .. name] == nil and graph and sub(name, 1, 1) ~= '$' and not graph[name] then
                drop = 'stage_unknown'
            elseif outs[name] or s and s.state ~= 'o' then
                drop = 'stage_state'
                if outs[name] then S[name] = s and s.state ~= 'o' and s.state ~= 'f' and s or stage_done(name, l.queue) end
            elseif not s then
                found(bad['s:' .. name] and 'stage_unreadable' or 'stage_missing', 'stage ' .. name .. ' of lane ' .. n)
                S[name] = stage_new('o', l.queue)
            end
            if drop then
                found(drop, 'stage ' .. name .. ' of lane ' .. n)
                changed = true
            else
                where[name] = n
                keep[#keep + 1] = name
            end
        end
        if #keep == 0 then
            if not changed then found('lane_empty', 'lane ' .. n) end
            lane_close(n)
        elseif changed then
            l.stages = table.concat(keep, ',')
        end
    end
end
local function lane_drop_stage(name)
    local n = where[name]
    if not n then return end
    local keep = {}
    for other in string.gmatch(L[n].stages, '[^,]+') do
        if other ~= name then keep[#keep + 1] = other end
    end
    where[name] = nil
    if #keep == 0 then
        lane_close(n)
    else
        L[n].stages = table.concat(keep, ',')
        if L[n].state == 'r' then lane_again(n) end -- whoever runs it has the stage in hand
    end
end
-- The records against the outputs. False: outputs are lost, and which stages hang on them is not known.
local function stages_of_outputs(ended, has_out)
    local last = S['$end'] and S['$end'].state
    if last == 'd' or last == 's' then
        found('stage_state', 'the end, which has no output, is done')
        S['$end'] = nil
    end
    for name in pairs(outs) do
        local s = S[name]
        if not s then
            found(bad['s:' .. name] and 'stage_unreadable' or 'stage_missing', 'stage ' .. name .. ', whose output is there')
            S[name] = stage_done(name)
        elseif s.state == 'o' or s.state == 'f' then
            found('stage_state', 'stage ' .. name .. ' is not done, but its output is there')
            S[name] = stage_done(name, s.queue)
        end
    end
    for name, s in pairs(S) do
        if (s.state == 'd' or s.state == 's') and not outs[name] and sub(name, 1, 1) ~= '$' and (has_out or not ended) then
            if not ended or job.status ~= 'completed' then lost[#lost + 1] = name end
        end
    end
    for field in pairs(bad) do
        local name = match(field, '^s:(.+)$')
        if name and not S[name] then
            found('stage_unreadable', 'stage ' .. name)
            if ended then
                S[name] = stage_new(job.status == 'completed' and 'd' or 'o', graph and graph[name] and graph[name].queue)
            elseif not graph then
                return false
            end
        end
    end
    if #lost == 0 then return true end
    table.sort(lost)
    found('output_missing', 'stage ' .. table.concat(lost, ','))
    if ended then
        for _, name in ipairs(lost) do S[name] = stage_new('o', S[name].queue) end
        return true
    end
    if not graph then return false end
    local again = {}
    for _, name in ipairs(lost) do again[name] = true end
    for _ = 1, #graph do -- whatever needs them, too
        local more = false
        for _, g in ipairs(graph) do
            for need in string.gmatch(g.needs, '[^,]+') do
                if again[need] and not again[g.name] then
                    again[g.name] = true
                    more = true
                end
            end
        end
        if not more then break end
    end
    again['$end'] = true
    for name in pairs(again) do
        lane_drop_stage(name)
        S[name] = nil
        outs[name] = nil
        put('calls:' .. name, false)
        put('steps:' .. name, false)
        todo[#todo + 1] = function() try('HDEL', KEYS[2], name) end
    end
    return true
end
-- By the graph: stages whose needs are done have to be open, and `$end` when all are. Only while nothing stops the job.
local function stages_of_graph()
    local all = true
    for _, g in ipairs(graph) do
        local ready = true
        for need in string.gmatch(g.needs, '[^,]+') do
            local s = S[need]
            ready = ready and s ~= nil and (s.state == 'd' or s.state == 's')
        end
        local s = S[g.name]
        all = all and s ~= nil and (s.state == 'd' or s.state == 's')
        if ready and not s then
            if #lost == 0 then found('stage_missing', 'stage ' .. g.name .. ', whose needs are done') end
            S[g.name] = stage_new('o', g.queue)
        end
    end
    local last = S['$end']
    if all and not last then
        found('stage_missing', 'the end, although all stages are done')
        S['$end'] = stage_new('o', #graph > 0 and graph[#graph].queue)
    elseif last and not all then
        found('stage_state', 'the end is open, but not all stages are done')
        lane_drop_stage('$end')
        S['$end'] = nil
    end
end
