-- fsck_lanes: each lane against its entry or member. What has to be written is noted in `todo`, and done at the end.
local todo, redo, members = {}, {}, {}
local lane_order = {}
-- The lane gets a new entry in class recovered; what it had is ended.
local function lane_again(n)
    redo[n] = true
end
local function lane_leave(n, l)
    if l.state == 'q' or l.state == 'r' then
        local stream = key('queue:' .. l.queue .. ':' .. l.class)
        todo[#todo + 1] = function()
            try('XACK', stream, 'workers', l.entry)
            try('XDEL', stream, l.entry)
            if l.state == 'r' then call('PUBLISH', base .. 'bell:' .. l.worker, 'stop ' .. id .. ' ' .. n) end
        end
    else
        local set = key(l.state == 'd' and 'due' or 'held:' .. job.pipeline)
        todo[#todo + 1] = function() try('ZREM', set, 'l ' .. id .. ' ' .. n) end
    end
end
local function lane_close(n)
    lane_leave(n, L[n])
    L[n] = nil
end
local function entry_check(n, l)
    local stream = key('queue:' .. l.queue .. ':' .. l.class)
    if not stream then return end
    local about = 'lane ' .. n .. ', entry ' .. l.entry .. ' in ' .. l.queue .. ':' .. l.class
    local rows = try('XRANGE', stream, l.entry, l.entry)
    if not rows or #rows == 0 then
        found('entry_missing', about)
        return lane_again(n)
    end
    local fields = {}
    for i = 1, #rows[1][2], 2 do fields[rows[1][2][i]] = rows[1][2][i + 1] end
    if fields.j ~= id or fields.l ~= n or fields.p ~= job.pipeline then
        found('entry_wrong', about)
        return lane_again(n)
    end
    local pending = try('XPENDING', stream, 'workers', l.entry, l.entry, 1)
    if pending and #pending > 0 then return end
    if l.state == 'r' then
        found('lane_unclaimed', about .. ', worker ' .. l.worker)
        return lane_again(n)
    end
    local read = group_read(stream)
    if read and not entry_after(l.entry, read) then
        found('entry_unreachable', about)
        lane_again(n)
    end
end
local function due_check(n, l)
    local score = try('ZSCORE', KEYS[4], 'l ' .. id .. ' ' .. n)
    if score and tonumber(score) == tonumber(l.entry) then return end
    found(score and 'due_time' or 'due_missing', 'lane ' .. n .. ', due at ' .. l.entry)
    members[#members + 1] = {KEYS[4], l.entry, 'l ' .. id .. ' ' .. n}
end
local function held_check(n, l, at)
    local set = key('held:' .. job.pipeline)
    if not set then return end
    local paused = try('HGET', KEYS[10], job.pipeline)
    local score = try('ZSCORE', set, 'l ' .. id .. ' ' .. n)
    local wakes = paused == '1' or paused == '0'
    if wakes and score and not job.stop then return end
    if not wakes or job.stop then
        found('held_unpaused', 'lane ' .. n .. ' of ' .. job.pipeline)
        return lane_again(n)
    end
    found('held_missing', 'lane ' .. n .. ' of ' .. job.pipeline)
    members[#members + 1] = {set, at, 'l ' .. id .. ' ' .. n}
end
local function lanes_sort()
    lane_order = {}
    for n in pairs(L) do lane_order[#lane_order + 1] = n end
    table.sort(lane_order, function(a, b)
        if (L[a].state == 'r') ~= (L[b].state == 'r') then return L[a].state == 'r' end
        return tonumber(a) < tonumber(b)
    end)
end
