#!lua flags=allow-oom
-- fsck_key: a key that belongs to no single job: its type, its TTL, what its fields hold. Keys: the key; when it may be
-- moved aside also quarantine and quarantined:key:NAME. ARGV: repair, type, TTL (-1: none may run; 0: any; else one has to
-- run, and this is set), kind of the content (paused revs info or empty), name for the list.
local call, match, sub = redis.call, string.match, string.sub
--@include fsck
local repair, want, ttl, content = ARGV[1] == '1', ARGV[2], tonumber(ARGV[3]), ARGV[4]
local kind = call('TYPE', KEYS[1]).ok
if kind == 'none' then return findings end
if kind ~= want then
    found('type_wrong', 'it is a ' .. kind .. ', not a ' .. want)
    if repair and KEYS[2] then
        call('RENAME', KEYS[1], KEYS[3])
        call('PERSIST', KEYS[3])
        local t = call('TIME')
        try('ZADD', KEYS[2], t[1] .. sub('000000' .. t[2], -6, -4), ARGV[5])
    elseif repair then
        call('DEL', KEYS[1])
    end
    return findings
end
local left = call('PTTL', KEYS[1])
if ttl < 0 and left >= 0 then
    found('ttl_running', 'it would be gone in ' .. left .. ' ms')
    if repair then call('PERSIST', KEYS[1]) end
elseif ttl > 0 and left == -1 then
    found('ttl_missing', 'it would stay for ever')
    if repair then call('PEXPIRE', KEYS[1], ttl) end
end
if content == '' then return findings end
local fields, top = call('HGETALL', KEYS[1]), 0
for i = 1, #fields, 2 do
    local name, text = fields[i], fields[i + 1]
    if content == 'paused' and text ~= '0' and text ~= '1' then
        found('value_unreadable', name)
        if repair then call('HSET', KEYS[1], name, '0') end -- the mover wakes what is held, and takes the field away
    elseif content == 'revs' and not is_number(text) or
           content == 'info' and (name == 'minute' or name == 'count' or sub(name, 1, 3) == 'fp:') and not is_number(text) then
        found('value_unreadable', name)
        if repair then call('HDEL', KEYS[1], name) end
    elseif content == 'revs' and name ~= 'n' and tonumber(text) > top then
        top = tonumber(text)
    end
end
if content == 'revs' and top > tonumber(is_number(call('HGET', KEYS[1], 'n')) and call('HGET', KEYS[1], 'n') or 0) then
    found('value_unreadable', 'n')
    if repair then call('HSET', KEYS[1], 'n', top) end
end
return findings
