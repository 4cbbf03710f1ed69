#!lua flags=allow-oom
-- resumed: ends a resumption when nothing is held any more. Keys: paused, held:PIPELINE. ARGV: pipeline.
if redis.call('HGET', KEYS[1], ARGV[1]) == '0' and redis.call('ZCARD', KEYS[2]) == 0 then
    redis.call('HDEL', KEYS[1], ARGV[1])
    return 1
end
return 0
