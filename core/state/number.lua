#!lua flags=allow-oom
-- number: numbers a revision in the order of loading. Keys: revs. ARGV: pipeline, revision.
local field = ARGV[1] .. ':' .. ARGV[2]
local number = redis.call('HGET', KEYS[1], field)
if number then return tonumber(number) end
number = redis.call('HINCRBY', KEYS[1], 'n', 1)
redis.call('HSET', KEYS[1], field, number)
return number
