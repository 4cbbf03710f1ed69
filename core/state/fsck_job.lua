#!lua flags=allow-oom
-- fsck_job: looks at all that is kept of one job and, with repair, mends it in the same step; what cannot be mended goes
-- into quarantine. Keys: job out log due dead dead:info jobs quarantine quarantined:ID paused quarantined:out:ID
-- quarantined:log:ID, names. ARGV: id, repair,
-- default of keep, conf, strict, digest (or empty) and the job's `created` that it was made with, revision of the graph (or
-- empty), then NAME QUEUE NEEDS of each stage.
-- The reply: OK, revision, whether it ended, QUARANTINED or not, then kind and words of each finding.
--@include base
--@include lane
--@include lanes
--@include ending
--@include fsck
local repair, keep_default, conf, is_strict, digest = ARGV[2] == '1', ARGV[3], ARGV[4], ARGV[5] == '1', ARGV[6]
local graph
findings = {'OK', '', 0, 0}
--@include fsck_read
--@include fsck_fields
--@include fsck_lanes
--@include fsck_stages

local at = time()
-- Everything about the job moves aside, as it is, so that nobody trips over it.
local function quarantine(why)
    found('job_beyond_repair', why)
    if not repair then return findings end
    for n, l in pairs(L) do
        if l.state == 'q' or l.state == 'r' then key('queue:' .. l.queue .. ':' .. l.class) end
        if l.state == 'h' and job.pipeline then key('held:' .. job.pipeline) end
    end
    if wanted then return wanted end
    for n, l in pairs(L) do
        if l.state ~= 'h' or job.pipeline then lane_leave(n, l) end
    end
    for _, work in ipairs(todo) do work() end
    for n in pairs(L) do try('ZREM', KEYS[4], 'l ' .. id .. ' ' .. n) end
    try('ZREM', KEYS[4], 'x ' .. id, 'd ' .. id)
    try('ZREM', KEYS[5], id)
    try('ZREM', KEYS[7], id)
    call('RENAME', KEYS[1], KEYS[9])
    call('PERSIST', KEYS[9])
    try('HSET', KEYS[9], 'quarantine', why)
    for i = 2, 3 do
        if call('EXISTS', KEYS[i]) == 1 then
            call('RENAME', KEYS[i], KEYS[i + 9])
            call('PERSIST', KEYS[i + 9])
        end
    end
    call('ZADD', KEYS[8], at, id)
    call('PUBLISH', base .. 'watch:' .. id, 'gone')
    findings[4] = 1
    return findings
end

local kind = call('TYPE', KEYS[1]).ok
if kind == 'none' then return findings end
if kind ~= 'hash' then return quarantine('it is a ' .. kind .. ', not a hash') end
job_read()
if ARGV[8] ~= '' and ARGV[8] == job.rev then
    graph = {}
    for i = 9, #ARGV, 3 do
        local g = {name = ARGV[i], queue = ARGV[i + 1], needs = ARGV[i + 2]}
        graph[#graph + 1] = g
        graph[g.name] = g
    end
end
if job.tomb and not job.status and not job.pipeline then
    if call('PTTL', KEYS[1]) < 0 then
        found('ttl_missing', 'a tombstone')
        if repair then call('PEXPIRE', KEYS[1], 3600000) end
    end
    return findings
end
local first_event = try('LINDEX', KEYS[3], 0)
local told = first_event and match(first_event, '^job%.queued %d+ {"pipeline":"([%w_.-]+)"')
if told and told ~= job.pipeline then
    found('field_unreadable', 'pipeline: ' .. sub(job.pipeline or 'none', 1, 64) .. ', in its first event ' .. told)
    put('pipeline', told)
end
if not job.pipeline or not match(job.pipeline, '^[%w_.-]+$') or #job.pipeline > 64 then
    return quarantine('it names no pipeline')
end
if not holds_json('input') then return quarantine('it has no input') end

-- Fields, then whether it has ended.
if digest ~= '' and changes.pipeline == nil and ARGV[7] == job.created and match(job.digest or '', '^%x+$') and #job.digest == 64 and job.digest ~= digest then
    return quarantine('its pipeline and input are not those that were submitted')
end
fields_check(at)
findings[2] = job.rev or ''
local has_result = holds_json('result')
local ended = has_ended()
findings[3] = ended and 1 or 0
if not ended then
    if job.finished then
        found('status_wrong', 'not ended, but with the time of an end')
        put('finished', false)
    end
    if call('HEXISTS', KEYS[1], 'result') == 1 and not has_result then put('result', false) end
else
    if not ends[job.status] then
        found('status_wrong', (job.status or 'none') .. ', but it has ended')
        put('status', end_status(has_result))
    end
    if not job.finished then
        found('status_wrong', 'ended, but without the time of it')
        put('finished', at)
    end
    if job.status == 'completed' and job.stop then
        found('status_wrong', 'completed, but stopped: ' .. job.stop)
        put('stop', false)
    elseif job.status == 'cancelled' and job.stop ~= 'cancelled' then
        found('status_wrong', 'cancelled, but not stopped so')
        put('stop', 'cancelled')
    elseif job.status == 'failed' and job.stop ~= 'failed' and job.stop ~= 'deadline' then
        found('status_wrong', 'failed, but not stopped so')
        put('stop', 'failed')
    end
end

-- Outputs and log; a key of another type is moved aside and counts as lost.
local out_kind, log_kind = call('TYPE', KEYS[2]).ok, call('TYPE', KEYS[3]).ok
for i, row in ipairs({{out_kind, 'hash'}, {log_kind, 'list'}}) do
    if row[1] ~= 'none' and row[1] ~= row[2] then
        found('type_wrong', (i == 1 and 'out' or 'log') .. ' is a ' .. row[1])
        todo[#todo + 1] = function() call('DEL', KEYS[i + 1]) end
    end
end
local has_out, has_log = out_kind == 'hash', log_kind == 'list'
if has_out then
    for _, name in ipairs(call('HKEYS', KEYS[2])) do
        local stage = match(name, '^([^#]*)#')
        if not stage then
            outs[name] = true
        elseif S[stage] and (S[stage].state == 'd' or S[stage].state == 's') then
            found('step_left', name)
            todo[#todo + 1] = function() try('HDEL', KEYS[2], name) end
        end
    end
end

-- A completed job without its result: made again from the outputs, when they are there.
if ended and job.status == 'completed' and not has_result then
    found('result_missing', 'it completed without a result that can be read')
    local all = has_out
    for name, s in pairs(S) do
        if sub(name, 1, 1) ~= '$' and not outs[name] then all = false end
    end
    if not all or not next(S) then return quarantine('its result is lost, and so are outputs to make it from') end
    ended = false
    for _, name in ipairs({'result', 'finished', 'events'}) do put(name, false) end
    for n, l in pairs(L) do lane_close(n) end
    S['$after'] = nil
    local queue = 'default'
    for _, s in pairs(S) do queue = s.queue end
    S['$end'] = stage_new('o', queue)
    findings[3] = 0
end

-- Lanes and stages.
for field in pairs(bad) do
    if sub(field, 1, 2) == 'l:' then found('lane_unreadable', field) end
end
lanes_sort()
stages_of_lanes(ended)
if not stages_of_outputs(ended, has_out) then
    return quarantine('stages or outputs are lost, and the source of its revision is not there to tell what comes next')
end
if ended then
    for name, s in pairs(S) do
        if job.status == 'completed' and sub(name, 1, 1) ~= '$' and s.state ~= 'd' and s.state ~= 's' then
            found('stage_state', 'stage ' .. name .. ' of a completed job')
            S[name] = stage_done(name, s.queue)
        end
    end
    if S['$after'] and S['$after'].state ~= 'o' then
        found('stage_state', 'the follow-up')
        S['$after'] = nil
    end
elseif job.stop == nil then
    for name, s in pairs(S) do
        if s.state == 'f' then
            found('status_wrong', 'stage ' .. name .. ' failed, but the job is not stopped')
            put('stop', 'failed')
            break
        end
    end
end
if not ended and not job.stop and graph then stages_of_graph() end

-- Open stages that no lane holds, by queue.
local more, queues = {}, {}
if not job.stop or ended then
    for name, s in pairs(S) do
        if s.state == 'o' and not where[name] and (not ended or name == '$after') then
            if texts['s:' .. name] and not bad['s:' .. name] and #lost == 0 then found('stage_unlaned', 'stage ' .. name) end
            if not more[s.queue] then
                more[s.queue] = {}
                queues[#queues + 1] = s.queue
            end
            table.insert(more[s.queue], name)
        end
    end
end
lanes_sort()
for _, n in ipairs(lane_order) do
    local l = L[n]
    if l.state == 'd' then
        due_check(n, l)
    elseif l.state == 'h' then
        held_check(n, l, at)
    elseif not redo[n] then
        entry_check(n, l)
    end
end
local count, listed = 0, {}
for n in pairs(L) do count = count + 1 end
local to_end = not ended and job.stop and count == 0
if not ended and count + #queues == 0 and not job.stop then
    return quarantine('it has no lane and no stage that could be run')
end
if to_end then found('job_unended', 'stopped (' .. job.stop .. '), with no lane left') end

-- `lanes`, `n`, `done`, status.
for n in string.gmatch(job.lanes or '', '[^,]+') do listed[#listed + 1] = n end
local names, top = {}, tonumber(job.n or 0)
for field in pairs(texts) do
    local n = match(field, '^l:(%d+)$')
    if n and L[n] == nil and not bad[field] then names[#names + 1] = n end -- closed above: reported there
    if n and L[n] then names[#names + 1] = n end
    if n and is_number(n) and tonumber(n) > top then top = tonumber(n) end
end
local function numeric(a, b) return tonumber(a) < tonumber(b) end
local function sorted(list)
    for _, n in ipairs(list) do
        if not is_number(n) then return 'unreadable' end
    end
    table.sort(list, numeric)
    return table.concat(list, ',')
end
local bad_lane = false
for field in pairs(bad) do bad_lane = bad_lane or sub(field, 1, 2) == 'l:' end
if sorted(listed) ~= sorted(names) and not bad_lane then
    found('lanes_list', (job.lanes or 'none') .. ' instead of ' .. table.concat(names, ','))
end
if not job.n or top > tonumber(job.n) then
    if job.n or changes.n == nil then found('lane_number', (job.n or 'none') .. ' below ' .. string.format('%d', top)) end
    put('n', string.format('%d', top))
end
local done = 0
for name, s in pairs(S) do
    if s.state == 'd' or s.state == 's' then done = done + 1 end
end
if tonumber(job.done or 0) ~= done then
    if #findings == 4 then found('done_wrong', (job.done or 'none') .. ' instead of ' .. done) end
    put('done', string.format('%d', done))
end
local function status_of_lanes()
    local status = #queues > 0 and 'queued' or 'waiting'
    for n, l in pairs(L) do
        local state = redo[n] and 'q' or l.state
        if state == 'r' then return 'processing' end
        if state == 'q' then status = 'queued' end
    end
    return status
end
if not ended and not to_end and job.status ~= status_of_lanes() then
    if #findings == 4 then found('status_wrong', (job.status or 'none') .. ', by its lanes ' .. status_of_lanes()) end
    put('status', status_of_lanes())
end

-- Lists and times.
local x = try('ZSCORE', KEYS[4], 'x ' .. id)
if not ended then
    if job.deadline and job.stop ~= 'cancelled' and job.stop ~= 'deadline' and not to_end then
        if not x or tonumber(x) ~= tonumber(job.deadline) then
            found(x and 'due_time' or 'due_missing', 'the deadline ' .. job.deadline)
            members[#members + 1] = {KEYS[4], job.deadline, 'x ' .. id}
        end
    elseif x and not job.deadline and job.ttl then
        found('due_time', 'the deadline ' .. x .. ' is not in the job')
        put('deadline', string.format('%.0f', tonumber(x)))
    end
end
local d = try('ZSCORE', KEYS[4], 'd ' .. id)
if ended and job.status == 'failed' then
    if job.next and (not d or tonumber(d) ~= tonumber(job.next)) then
        found(d and 'due_time' or 'due_missing', 'its next run ' .. job.next)
        members[#members + 1] = {KEYS[4], job.next, 'd ' .. id}
    elseif d and not job.next then
        found('due_time', 'the next run ' .. d .. ' is not in the job')
        put('next', string.format('%.0f', tonumber(d)))
    end
    if not job.discarded and not try('ZSCORE', KEYS[5], id) then
        found('dead_missing', 'it failed, and is not among the dead letters')
        members[#members + 1] = {KEYS[5], job.finished, id}
    end
    if not job.error then
        if changes.error == nil then found('status_wrong', 'failed without an error') end
        put('error', '{"code":"internal","message":"the error of this job was lost","class":"bug","retryable":false}')
    end
elseif job.next then
    found('field_unreadable', 'next, of a job that has not failed')
    put('next', false)
end
if job.held and not (ended and job.status == 'failed') then
    found('field_unreadable', 'held, of a job that has not failed')
    put('held', false)
elseif job.held then -- by a breaker
    local set = key('dead:held')
    if set and not try('ZSCORE', set, job.held .. ' ' .. id) then
        found('dead_missing', 'it is held by the breaker of ' .. sub(job.held, 1, 200) .. ', and not in its list')
        members[#members + 1] = {set, 0, job.held .. ' ' .. id}
    end
end
if not try('ZSCORE', KEYS[7], id) then
    found('list_missing', 'it is not in the list of jobs')
    members[#members + 1] = {KEYS[7], job.created, id}
end

-- The log: it begins with job.queued; the end's number is its length, unless a follow-up tells more.
local events_new = {}
if not ended or has_log then
    local first = has_log and call('LINDEX', KEYS[3], 0)
    if not first or sub(first, 1, 11) ~= 'job.queued ' then
        found('log_cut', first and 'it does not begin with job.queued' or 'it is gone')
        todo[#todo + 1] = function() call('LPUSH', KEYS[3], 'job.queued ' .. job.created .. ' {"pipeline":"' .. job.pipeline .. '","round":' .. job.round .. ',"progress":0}') end
        has_log = true
    elseif ended and not job.after and call('LLEN', KEYS[3]) ~= tonumber(job.events or -1) then
        found('log_length', 'events ' .. (job.events or 'none') .. ', in the log ' .. call('LLEN', KEYS[3]))
    end
end
local short, long = match(job.keep, '^(%d+) (%d+)$')
if job.status ~= 'completed' then short = long end
for i, row in ipairs({{'job', true, long}, {'out', has_out, short}, {'log', has_log, short}}) do
    local ttl = call('PTTL', KEYS[i])
    if row[2] and ended and ttl == -1 then
        found('ttl_missing', row[1] .. ' of an ended job')
        todo[#todo + 1] = function() call('PEXPIRE', KEYS[i], row[3]) end
    elseif row[2] and not ended and ttl >= 0 and not to_end then
        found('ttl_running', row[1] .. ' of a job that has not ended')
        todo[#todo + 1] = function() call('PERSIST', KEYS[i]) end
    end
end
if wanted then return wanted end
if not repair or #findings == 4 and #order == 0 and #todo == 0 then return findings end

-- Repair. Keys of all that is to be written, then the writes.
for n in pairs(redo) do
    if L[n] then
        lane_leave(n, L[n])
        key('queue:' .. L[n].queue .. ':recovered')
    end
end
for _, queue in ipairs(queues) do key('queue:' .. queue .. ':recovered') end
if to_end then key('queue:default:normal') end
if wanted then return wanted end
for _, work in ipairs(todo) do work() end
for _, m in ipairs(members) do call('ZADD', m[1], m[2], m[3]) end
for n in pairs(redo) do
    local l = L[n]
    if l then
        l.state, l.class, l.fence, l.worker = 'q', 'recovered', '-', '-'
        l.entry = entry_new(key('queue:' .. l.queue .. ':recovered'), n, job.pipeline)
    end
end
table.sort(queues)
for _, queue in ipairs(queues) do
    table.sort(more[queue])
    top = top + 1
    local n = string.format('%d', top)
    L[n] = {state = 'q', queue = queue, class = 'recovered', fence = '-', worker = '-', crashes = 0, takeovers = 0, refused = 0,
            entry = entry_new(key('queue:' .. queue .. ':recovered'), n, job.pipeline), stages = table.concat(more[queue], ',')}
    put('n', n)
end
local list = {}
for n in pairs(L) do list[#list + 1] = n end
if sorted(list) ~= job.lanes then put('lanes', sorted(list)) end
local set, gone = {}, {}
for _, name in ipairs(order) do
    if changes[name] then
        set[#set + 1] = name
        set[#set + 1] = changes[name]
    else
        gone[#gone + 1] = name
    end
end
for n, l in pairs(L) do
    if texts['l:' .. n] ~= lane_text(l) then
        set[#set + 1] = 'l:' .. n
        set[#set + 1] = lane_text(l)
    end
end
for name, s in pairs(S) do
    if texts['s:' .. name] ~= stage_text(s) then
        set[#set + 1] = 's:' .. name
        set[#set + 1] = stage_text(s)
    end
end
for field in pairs(texts) do
    local sort, name = sub(field, 1, 1), sub(field, 3)
    if sort == 'l' and not L[name] or sort == 's' and not S[name] then gone[#gone + 1] = field end
end
if #set > 0 then call('HSET', KEYS[1], unpack(set)) end
if #gone > 0 then call('HDEL', KEYS[1], unpack(gone)) end
if to_end then
    local error = job.error
    if job.stop ~= 'cancelled' and not error then
        error = '{"code":"internal","message":"the error of this job was lost","class":"bug","retryable":false}'
        call('HSET', KEYS[1], 'error', error)
    end
    local e = ending_read(job.stop, conf)
    ending_write(e, at, top, error, {}, {})
elseif ended and has_log and not job.after then
    call('HSET', KEYS[1], 'events', call('LLEN', KEYS[3]))
end
return findings
