-- lane: the packed field `l:N`: state queue class entry fence worker crashes takeovers refused stages.
local function lane_read(text)
    local state, queue, class, entry, fence, worker, crashes, takeovers, refused, stages =
        match(text, '^(%a) (%S+) (%S+) (%S+) (%S+) (%S+) (%d+) (%d+) (%d+) (%S*)$')
    return {state = state, queue = queue, class = class, entry = entry, fence = fence, worker = worker,
            crashes = tonumber(crashes), takeovers = tonumber(takeovers), refused = refused, stages = stages}
end
local function lane_text(l)
    return l.state .. ' ' .. l.queue .. ' ' .. l.class .. ' ' .. l.entry .. ' ' .. l.fence .. ' ' .. l.worker .. ' ' ..
           l.crashes .. ' ' .. l.takeovers .. ' ' .. l.refused .. ' ' .. l.stages
end
