#!lua flags=no-writes
-- events: a part of a log. Keys: log. ARGV: first and last position, from 0.
return {redis.call('LLEN', KEYS[1]), redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[2])}
