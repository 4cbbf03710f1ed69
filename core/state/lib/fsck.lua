-- fsck: findings of a check, and reads that a damaged key cannot break.
local findings = {'OK'}
local function found(kind, what)
    findings[#findings + 1] = kind
    findings[#findings + 1] = what
end
-- As call, but nil where Redis answers an error (another type, no such group, no id of an entry).
local function try(...)
    local reply = redis.pcall(...)
    if type(reply) == 'table' and reply.err then return nil end
    return reply
end
local function is_number(text)
    return text and #text < 17 and match(text, '^%d+$') ~= nil
end
-- Whether id a of a stream's entry comes after b.
local function entry_after(a, b)
    local a_ms, a_n = match(a, '^(%d+)-(%d+)$')
    local b_ms, b_n = match(b, '^(%d+)-(%d+)$')
    if not a_ms or not b_ms then return false end
    if tonumber(a_ms) ~= tonumber(b_ms) then return tonumber(a_ms) > tonumber(b_ms) end
    return tonumber(a_n) > tonumber(b_n)
end
-- The id that the group has read up to; nil: there is no group.
local function group_read(stream)
    for _, group in ipairs(try('XINFO', 'GROUPS', stream) or {}) do
        local row = {}
        for i = 1, #group, 2 do row[group[i]] = group[i + 1] end
        if row.name == 'workers' then return row['last-delivered-id'] end
    end
end
