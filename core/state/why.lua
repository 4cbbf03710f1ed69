#!lua flags=no-writes
-- why: what decides where a job stands, in one look. Keys: job quarantine paused dead dead:info workers due, worker:NAME
-- and streams by name. ARGV: id. The reply: TIME in ms, fields of the hash (short ones), score in quarantine, whether the
-- pipeline is paused, score among the dead letters, budget's minute and count, failures of the fingerprint.
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local quarantined = redis.pcall('ZSCORE', KEYS[2], ARGV[1])
if type(quarantined) == 'table' then quarantined = false end
local kind = call('TYPE', KEYS[1]).ok
if kind ~= 'hash' then return {now, kind, {}, quarantined} end
local fields = {}
for _, name in ipairs(call('HKEYS', KEYS[1])) do
    if name ~= 'input' and name ~= 'result' and name ~= 'meta' then
        fields[#fields + 1] = name
        fields[#fields + 1] = call('HGET', KEYS[1], name)
    end
end
local v = call('HMGET', KEYS[1], 'pipeline', 'fp')
local function quiet(...)
    local reply = redis.pcall(...)
    if type(reply) == 'table' and reply.err then return false end
    return reply
end
local paused = v[1] and quiet('HGET', KEYS[3], v[1])
local dead = quiet('ZSCORE', KEYS[4], ARGV[1])
local budget = quiet('HMGET', KEYS[5], 'minute', 'count') or {}
local failures = v[2] and quiet('HGET', KEYS[5], 'fp:' .. v[2])
return {now, kind, fields, quarantined, paused, dead, budget[1] or false, budget[2] or false, failures or false,
        call('PTTL', KEYS[1])}
