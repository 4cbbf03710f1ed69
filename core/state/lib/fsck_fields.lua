-- fsck_fields: the plain fields of a job. `put` sets a field (false: deletes it) when the repair writes.
local changes, order = {}, {}
local function put(name, value)
    if changes[name] == nil then order[#order + 1] = name end
    changes[name] = value
    job[name] = value or nil
end
local function unreadable(name, value)
    found('field_unreadable', name)
    put(name, value)
end
local function fields_check(at)
    for _, name in ipairs({'started', 'finished', 'deadline', 'next', 'events', 'told', 'done', 'progress', 'tries', 'ttl', 'n'}) do
        if job[name] and not is_number(job[name]) then unreadable(name, false) end
    end
    if not is_number(job.created) then unreadable('created', job.started or at) end
    if not is_number(job.round) then unreadable('round', '1') end
    if not job.req or job.req == '' or is_strict and find(job.req, '%s') then unreadable('req', 'fsck') end
    if not job.keep or not match(job.keep, '^%d+ %d+$') or #job.keep > 40 then unreadable('keep', keep_default) end
    if not classes[job.prio] or job.prio == 'recovered' then unreadable('prio', 'normal') end
    if job.usage and not match(job.usage, '^%-?%d+ %-?%d+ %-?%d+$') then unreadable('usage', false) end
    if job.error and not holds_json('error') then unreadable('error', false) end
    if job.meta and not (sub(job.meta, 1, 1) == '{' and holds_json('meta')) then unreadable('meta', false) end
    if job.stop and job.stop ~= 'failed' and job.stop ~= 'deadline' and job.stop ~= 'cancelled' then unreadable('stop', false) end
    if is_strict and job.rev and (not match(job.rev, '^%x+$') or #job.rev ~= 64) then unreadable('rev', false) end
    if is_strict and (not job.digest or not match(job.digest, '^%x+$') or #job.digest ~= 64) then
        found('field_unreadable', 'digest')
        if digest ~= '' and changes.pipeline == nil then put('digest', digest) end
    end
    for name, text in pairs(job) do
        local stage = match(name, '^calls:(.+)$')
        if stage and not match(text, '^%S+ %S[^\n]*\n') then unreadable(name, false) end
    end
end

-- Whether the job has ended: by its status and `finished`, which only an end sets; where they differ, by its lanes.
local ends = {completed = true, failed = true, cancelled = true}
local opens = {queued = true, processing = true, waiting = true}
local function has_ended()
    local main = false
    for _, l in pairs(L) do main = main or l.stages ~= '$after' end
    local status, finished = job.status, job.finished ~= nil
    if ends[status] and finished then return true end
    if opens[status] and not finished then return false end
    if main then return false end
    if ends[status] then return true end
    return finished
end
local function end_status(has_result)
    if has_result and not job.stop then return 'completed' end
    return job.stop == 'cancelled' and 'cancelled' or 'failed'
end
