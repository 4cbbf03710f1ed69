#!lua flags=no-writes
-- brief: jobs without what may be long (input, result, outputs, notes). Keys: job and log of each, at most 50 jobs. One that
-- is of another type (fsck tells of it) reads as none, so that the list has the others.
local t = redis.call('TIME')
local found = {}
for i = 1, #KEYS, 2 do
    local names, fields = {}, {}
    local all, log = redis.pcall('HKEYS', KEYS[i]), redis.pcall('LLEN', KEYS[i + 1])
    for _, name in ipairs(all.err and {} or all) do
        if name ~= 'input' and name ~= 'result' and not string.find(name, '^calls:') and not string.find(name, '^steps:') then
            names[#names + 1] = name
        end
    end
    if #names > 0 then
        for k, value in ipairs(redis.call('HMGET', KEYS[i], unpack(names))) do
            fields[2 * k - 1] = names[k]
            fields[2 * k] = value
        end
    end
    found[#found + 1] = {fields, {}, type(log) == 'number' and log or 0, t[1] * 1000 + math.floor(t[2] / 1000),
                         redis.call('PEXPIRETIME', KEYS[i])}
end
return found
