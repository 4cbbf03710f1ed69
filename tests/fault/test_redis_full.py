"""Redis that takes no writes: at maxmemory, with a disk that is full, read-only. Submits are refused in words that say
why, readyz says it too, jobs that run go on or wait with what they have; nothing is paid for twice."""

import os
import resource
import signal

import outage
import pytest

import ledger
import samples

CALLER = {
    "stages": [
        samples.model("before", "before {{ .input.n }}", retry=ledger.RETRY),
        {"name": "order", "plugin": "reward", "retry": ledger.RETRY, "options": {"targets": [
            {"name": "child", "mode": "call", "pipeline": "ask", "timeout": "60s", "input": {"say": "child of {{ .input.n }}"}}]}},
    ],
    "result": "{{ .order }}",
}


def checks(rig):
    reply = rig.get("/readyz")
    return reply.status, reply.json["checks"]


def until_check(rig, name, words):
    """readyz is 503 and names the trouble at that check."""
    rig.until(lambda: checks(rig)[0] == 503 and words in checks(rig)[1][name])


def test_out_of_memory(new_rig):
    """At maxmemory with noeviction a submit is refused and says so; what runs or is queued goes on to its end, calls and
    their children, steps, limits and a worker that is started meanwhile included; with memory again submits are taken.
    Fails with: core/state/child.lua, note.lua, step.lua, limit.lua, enroll.lua, commit.lua: without flags=allow-oom, and
    core/state/store.c, store_check: SET before GET."""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS, "ask": samples.ask(retry=ledger.RETRY), "caller": CALLER},
                config={"concurrency": 4, "lease": "2s", "endpoints": {"openai": {"max_in_flight": 50, "rpm": 100000}}})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=4)
    r.sim.rule({"hold": True}, {"contains": "before"}, times=4)
    jobs = ledger.submit(r, 4)
    callers = [r.submit("caller", {"n": f"c{i}."})["id"] for i in range(4)]
    r.sim.wait(held=8)
    jobs.update(ledger.submit(r, 6, "queued"))
    r.redis.config_set("maxmemory", "1mb")
    outage.refused(r, "Redis is out of memory")
    until_check(r, "writes", "maxmemory")
    assert checks(r)[1]["redis"] == "ok"
    # A worker that dies now is replaced: registering and learning what it has to do must not need memory.
    since = len(r.daemon.lines)
    r.kill(r.workers()[0])
    r.daemon.wait_line(r"worker \d: ready ", since=since)
    r.sim.release()
    for id in callers:
        job = r.wait_job(id, patience=60)
        assert job["status"] == "completed" and "child of" in str(job["result"]), job
    ledger.assert_done(r, jobs, repeated=jobs)
    outage.refused(r, "Redis is out of memory")
    assert r.get(f"/api/v1/jobs/{callers[0]}").status == 200
    r.redis.config_set("maxmemory", "0")
    r.until_ready()
    assert r.run("ask", {"say": "afterwards"})["status"] == "completed"
    assert r.run("ask", {"say": "refused"})["status"] == "completed"


def limit_file_size(process, size):
    """Writes beyond that size fail with EFBIG, as those on a full disk do with ENOSPC; -1: no limit."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


IGNORE_SIGXFSZ = ("env", "--ignore-signal=XFSZ")


@pytest.mark.parametrize("what", ["append-only file", "snapshot"])
def test_the_disk_is_full(new_rig, what):
    """Redis cannot write its file and refuses all writes, connections stay as they are. Submits say why; answers of the
    model that come meanwhile are kept and stored when the disk has room, longer than some leases later, and nothing is
    asked again; nobody takes over what could not be renewed.
    Fails with: core/io/redis.c, run: `again = kind == SCRIPT_BUSY;` (a checkpoint gives up). That nobody takes over is a
    race here without core/state/sweep.lua's guard, and certain in tests/unit/state/test_stop.c, after_an_outage."""
    by_aof = what == "append-only file"
    # Both workers hold some, and one of them has slots to take over into.
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS, "ask": samples.ask()},
                config={"lease": "1500ms", "concurrency": 12}, appendonly="everysec" if by_aof else None, redis_launch=IGNORE_SIGXFSZ)
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=20)
    jobs = ledger.submit(r, 20)
    r.sim.wait(held=20)
    fences = {id: outage.lanes(r, id)[0][1] for id in jobs.values()}
    limit_file_size(r.redis_process, 1)
    if by_aof:
        r.until(lambda: r.redis.info("persistence")["aof_last_write_status"] == "err")
    else:
        r.redis.config_set("save", "3600 1000000")
        r.redis.bgsave()
        r.until(lambda: r.redis.info("persistence")["rdb_last_bgsave_status"] == "err")
    usage = outage.Usage(r)
    outage.refused(r, "Redis cannot write to its disk")
    until_check(r, "writes", "disk")
    assert checks(r)[1]["redis"] == "ok"
    r.sim.release(10)
    r.sim.wait(ended=30)  # 20 "first of", 10 "second of"
    outage.let_pass(r, 6)
    outage.refused(r, "Redis cannot write to its disk")
    usage.assert_calm(lines=150)
    assert len(r.workers()) == 2
    limit_file_size(r.redis_process, resource.RLIM_INFINITY)
    if not by_aof:
        r.redis.bgsave()
    r.until_ready()
    done = r.until(lambda: (lambda ended: ended if len(ended) >= 10 else None)(
        [id for id in jobs.values() if r.redis.hget(f"mr:{{0}}:job:{id}", "status") == "completed"]))
    outage.let_pass(r, 3)
    outage.assert_no_takeovers(r, [id for id in jobs.values() if id not in done], fences)
    r.sim.release()
    ledger.assert_done(r, jobs)
    assert all(count == 1 for count in ledger.asked(r.sim).values())
    assert r.run("ask", {"say": "afterwards"})["status"] == "completed"


def test_read_only_for_a_while(new_rig):
    """Redis is made a replica under way, as in a failover that went wrong: submits say so, running jobs keep what they
    have; a primary again, all goes on.
    Fails with: fcgi/front.c, front_has_store: `problem_store(response, exchange->request.id, OUTAGE_AWAY)`, and
    core/io/redis_link.c, link_greet: without GREET_ROLE (drops and connects again without end)."""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS, "ask": samples.ask()}, config={"lease": "2s"})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=10)
    jobs = ledger.submit(r, 10)
    r.sim.wait(held=10)
    r.redis.replicaof("127.0.0.1", "1")
    usage = outage.Usage(r)
    until_check(r, "redis", "replica")
    outage.refused(r, "Redis is read-only")
    r.sim.release()
    r.sim.wait(ended=20)
    outage.let_pass(r, 6)
    usage.assert_calm(lines=200)
    r.redis.replicaof("NO", "ONE")
    r.until_ready()
    ledger.assert_done(r, jobs)
    assert all(count == 1 for count in ledger.asked(r.sim).values())


def test_no_worker(new_rig):
    """readyz says when no worker is registered; a front of its own only tells it. What is queued waits.
    Fails with: fcgi/api_health.c, ask_redis: `return rc == MR_OK;`"""
    r = new_rig(workers=1, pipelines={"ask": samples.ask()}, config={"lease": "1s"})
    assert checks(r) == (200, {name: "ok" for name in ("redis", "writes", "workers", "store", "serving", "pipelines")})
    worker = r.workers()[0]
    r.kill(worker, signal.SIGSTOP)
    until_check(r, "workers", "no worker is registered")
    assert checks(r)[1]["writes"] == "ok"
    id = r.submit("ask", {"say": "waits"})["id"]
    os.kill(worker, signal.SIGCONT)
    r.until_ready()
    assert r.wait_job(id)["status"] == "completed"


def test_a_front_alone_is_ready(new_rig):
    """Fails with: fcgi/api_health.c, ask_redis: `&& has_workers;` (whatever the role)."""
    r = new_rig(pipelines={"ask": samples.ask()}, config={"role": "front"})
    status, said = checks(r)
    assert status == 200 and said["workers"] == "no worker is registered in Redis"
    assert r.submit("ask", {"say": "queued"})["status"] == "queued"
