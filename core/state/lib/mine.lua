-- mine: the lane of the caller: `l` is nil when it is another's. Uses ARGV[2] (lane) and ARGV[3] (fence).
local n, fence = ARGV[2], ARGV[3]
local function mine(text)
    local l = text and lane_read(text)
    if l and l.state == 'r' and l.fence == fence then return l end
end
