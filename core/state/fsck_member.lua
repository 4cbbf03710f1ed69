#!lua flags=allow-oom
-- fsck_member: members of a sorted set against the jobs they stand for. Keys: set, then a job for each member. ARGV: repair,
-- kind of the set (due held dead jobs broken), its pipeline (held), then member, id and lane (or what else it names) of
-- each; an empty id: the member is none of ours.
local call, match, sub = redis.call, string.match, string.sub
--@include lane
--@include fsck
local kind, pipeline = ARGV[2], ARGV[3]
local function judge(member, id, n, key)
    if id == '' then return 'member_unreadable' end
    local v = try('HMGET', key, 'status', 'l:' .. n, 'deadline', 'pipeline', 'held')
    local status = v and v[1]
    local is_list = kind == 'dead' or kind == 'jobs' or kind == 'broken' or sub(member, 1, 2) == 'd '
    if v and not status and is_list then return 'list_stale' end
    if not status then return not is_list and 'member_orphan' or nil end
    if kind == 'jobs' then return nil end
    if kind == 'dead' then return status ~= 'failed' and 'member_orphan' or nil end
    if kind == 'broken' then return (status ~= 'failed' or v[5] ~= n) and 'member_orphan' or nil end
    if kind == 'held' or sub(member, 1, 1) == 'l' then
        local l = v[2] and lane_read(v[2]) or {}
        if l.state ~= (kind == 'held' and 'h' or 'd') or kind == 'held' and v[4] ~= pipeline then return 'member_orphan' end
        return nil
    end
    if sub(member, 1, 1) == 'd' then return status ~= 'failed' and 'member_orphan' or nil end
    local ended = status == 'failed' or status == 'completed' or status == 'cancelled'
    return (ended or not v[3]) and 'member_orphan' or nil
end
for i = 2, #KEYS do
    local member, id, n = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
    local finding = call('ZSCORE', KEYS[1], member) and judge(member, id, n, KEYS[i])
    if finding then
        found(finding, member)
        if ARGV[1] == '1' then call('ZREM', KEYS[1], member) end
    end
end
return findings
