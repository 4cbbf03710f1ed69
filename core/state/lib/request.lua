-- request: `PREFIX:ROUND` of a parent; others have no round. Whether a begins a later run than b.
local function request_later(a, b)
    if a == b then return false end
    local a_who, a_round = match(a, '^(.*):(%d+)$')
    local b_who, b_round = match(b or '', '^(.*):(%d+)$')
    if a_who and a_who == b_who then return tonumber(a_round) > tonumber(b_round) end
    return true
end
local function request_same_parent(a, b)
    local a_who = match(a or '', '^(.*):%d+$')
    return a_who ~= nil and a_who == match(b or '', '^(.*):%d+$')
end
