#!lua flags=allow-oom
-- fsck_entry: entries of a stream against the lanes that should name them. Keys: stream, then a job for each entry. ARGV:
-- repair, the stream's `QUEUE:CLASS`, then entry, id and number of the lane of each (an empty id: the entry is none of ours).
local call, match, sub = redis.call, string.match, string.sub
--@include lane
--@include fsck
for i = 2, #KEYS do
    local entry, id, n = ARGV[3 * i - 3], ARGV[3 * i - 2], ARGV[3 * i - 1]
    local kind
    if #call('XRANGE', KEYS[1], entry, entry) == 1 then
        local text = id ~= '' and try('HGET', KEYS[i], 'l:' .. n)
        local l = text and lane_read(text) or {}
        if id == '' then
            kind = 'entry_unreadable'
        elseif (l.state ~= 'q' and l.state ~= 'r') or l.entry ~= entry then
            kind = (l.state == 'q' or l.state == 'r') and 'entry_twice' or 'entry_orphan'
        elseif l.queue .. ':' .. l.class ~= ARGV[2] then
            kind = 'entry_orphan'
        end
    end
    if kind then
        found(kind, entry .. (id ~= '' and ' of lane ' .. n .. ' of ' .. id or ''))
        if ARGV[1] == '1' then
            try('XACK', KEYS[1], 'workers', entry)
            call('XDEL', KEYS[1], entry)
        end
    end
end
return findings
