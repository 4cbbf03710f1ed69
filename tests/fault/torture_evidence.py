"""What is left after a torture, gathered into plain data: the checker looks at this and at nothing else.

    jobs     {id: {"hash", "log": [texts], "out": {field: text}, "ttl": [ms of hash, log, out]}}, children too
    left     {what: how much}: entries of streams, pending ones, members of due and held:… (all of it must be gone)
    calls    [(text, at ms, took ms, outcome, status)] of the simulator's journal
    rows     {table: [(id, n, what)]}
    records  what the clients were told (torture_client)
    faults   what was done (torture_faults)
"""

import itertools

import torture_jobs

BATCH = 500


def batches(items, size=BATCH):
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def prefix(redis):
    return "mr:{0}:"


def jobs(redis):
    base = prefix(redis)
    found = {}
    for batch in batches(redis.scan_iter(f"{base}job:*", count=2000)):
        pipe = redis.pipeline(transaction=False)
        ids = [key.removeprefix(f"{base}job:") for key in batch]
        for id in ids:
            pipe.hgetall(f"{base}job:{id}")
            pipe.lrange(f"{base}log:{id}", 0, -1)
            pipe.hgetall(f"{base}out:{id}")
            for kind in ("job", "log", "out"):
                pipe.pttl(f"{base}{kind}:{id}")
        replies = pipe.execute()
        for i, id in enumerate(ids):
            hash, log, out, *ttl = replies[6 * i : 6 * i + 6]
            found[id] = {"hash": hash, "log": log, "out": out, "ttl": ttl}
    return found


def left(redis):
    base = prefix(redis)
    found = {}
    for key in redis.scan_iter(f"{base}queue:*", count=1000):
        found[f"entries of {key}"] = redis.xlen(key)
        for group in redis.xinfo_groups(key):
            found[f"pending in {key}"] = group["pending"]
    found["members of due"] = redis.zcard(f"{base}due")
    found["dead letters"] = redis.zcard(f"{base}dead")
    for key in redis.scan_iter(f"{base}held:*", count=1000):
        found[f"members of {key}"] = redis.zcard(key)
    return {what: count for what, count in found.items() if count}


def calls(sim):
    return [(e.get("text", ""), e["at"], e["took_ms"], e["outcome"], e["status"]) for e in sim.journal()]


def gather(rig, seed, records, faults):
    return {
        "seed": seed,
        "jobs": jobs(rig.redis),
        "left": left(rig.redis),
        "calls": calls(rig.sim),
        "rows": torture_jobs.rows(rig.folder / "pipelines"),
        "records": records,
        "faults": faults,
    }
