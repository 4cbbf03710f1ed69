#!lua flags=allow-oom
-- offer: leaves the source of a revision, unless it is there. Keys: rev:SHA. ARGV: source.
return redis.call('SETNX', KEYS[1], ARGV[1])
