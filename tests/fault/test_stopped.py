"""SIGSTOP and SIGCONT of workers: who stood still past its lease changes nothing when it goes on."""

import signal

import ledger
import samples
from hosts import Host

JOBS = 40


def pending(r, least_idle=0):
    """Entries that some worker holds and has not renewed for `least_idle` ms."""
    return r.redis.xpending_range("mr:{0}:queue:default:normal", "workers", "-", "+", 1000, idle=least_idle)


def test_stopped_past_its_lease_and_continued(new_rig):
    """SIGSTOP: the lease runs out, the other worker takes over. SIGCONT: the first one has its answers and may not store
    them, for the lane is another's now.
    Fails with: core/state/commit.lua: `if state ~= 'r' then return {'LOST'} end`"""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS}, config={"lease": "1s", "stall": "60s"})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"})
    jobs = ledger.submit(r, JOBS)
    r.sim.wait(held=JOBS)
    stopped = r.workers()[0]
    r.kill(stopped, signal.SIGSTOP)
    # The answers of the first calls: the living worker takes its own, the stopped one's lie in its sockets.
    r.sim.release(JOBS)
    # The living worker asks again, one after the other, what the stopped one had asked; it is kept waiting.
    r.sim.wait(held=1)
    mark = len(r.daemon.lines)
    r.kill(stopped, signal.SIGCONT)
    r.daemon.wait_line("lost to another worker", since=mark)
    taken = {e["text"].removeprefix("second of ") for e in r.sim.journal() if e["text"].startswith("second of ")
             and ledger.asked(r.sim)[e["text"]] == 2}
    assert taken
    for n in taken:
        job = r.job(jobs[n])
        assert job["stages"]["second"]["status"] == "processing", job
    r.sim.control("DELETE", "rules")
    r.sim.release()
    for id in jobs.values():
        r.sim.release()
        r.wait_job(id)
    ledger.assert_done(r, jobs, repeated=jobs)
    # The continued worker is whole: it takes new work.
    more = ledger.submit(r, 10, "m")
    ledger.assert_done(r, more)
    assert stopped in r.workers()


def test_stopped_past_its_lease_with_nobody_else(new_rig):
    """Nobody took over meanwhile: the worker that goes on still has its lanes, and asks nothing again.
    Fails with: core/work/keeper.c, keeper_main: `abort();` where a late tick sets `floor_ms` (a gap taken for a hang)."""
    r = new_rig(workers=1, pipelines={"books": ledger.BOOKS}, config={"lease": "1s", "stall": "60s"})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"})
    jobs = ledger.submit(r, JOBS)
    r.sim.wait(held=JOBS)
    worker = r.workers()[0]
    r.kill(worker, signal.SIGSTOP)
    r.until(lambda: len(pending(r, 1500)) == JOBS)
    r.kill(worker, signal.SIGCONT)
    # Its own entries looked overdue to itself: it may take none of them for another's.
    r.until(lambda: not pending(r, 1000))
    r.sim.control("DELETE", "rules")
    r.sim.release()
    ledger.assert_done(r, jobs)
    assert r.workers() == [worker]


def test_stopped_with_a_commit_on_the_wire(new_rig):
    """Redis has run the commit, its reply lies in the stopped worker's socket; then another host takes over and goes on.
    The reply says "go on with the next stage": that was true then. The model is asked once for that stage.
    Fails with: core/work/work_ops.c, work_is_stale: `lease_ms * 1000` in place of `lease_ms / 2`."""
    two = {"stages": [samples.model("first", "first of {{ .input.n }}"), samples.model("second", "second of {{ .input.n }}")],
           "result": "{{ .second.text }}"}
    r = new_rig(workers=1, pipelines={"two": two}, config={"lease": "1s", "stall": "60s"})
    assert r.run("two", {"n": "warm"})["status"] == "completed"
    r.sim.rule({"hold": True}, {"contains": "first of wire"}, times=1)
    r.sim.rule({"hold": True}, {"contains": "second of"})
    id = r.submit("two", {"n": "wire"})["id"]
    r.sim.wait(held=1)
    r.redis.execute_command("CLIENT", "PAUSE", "600000", "WRITE")
    r.sim.release()
    # The worker's first script that writes is the commit; Redis has it and holds it back, or what stands before it.
    r.until(lambda: [c for c in r.redis.client_list() if c["name"] == "worker" and "b" in c["flags"]
                     and (c["cmd"] == "evalsha" or int(c["qbuf"]) > 300)], step=0.01)
    worker = r.workers()[0]
    r.kill(worker, signal.SIGSTOP)
    r.redis.execute_command("CLIENT", "UNPAUSE")
    r.until(lambda: r.redis.hget(f"mr:{{0}}:job:{id}", "s:first").startswith("d"))
    with Host(r, "other"):
        r.sim.wait(held=1)
        r.kill(worker, signal.SIGCONT)
        r.daemon.wait_line("lost to another worker")
        # It has been told: whatever it began on the strength of that reply it has begun by now.
        assert ledger.asked(r.sim)["second of wire"] == 1
        r.sim.control("DELETE", "rules")
        r.sim.release()
        assert r.wait_job(id)["status"] == "completed"
    assert [e["event"] for e in r.events(id).json["data"]].count("stage.completed") == 2
    assert r.sim.stats()["requests"] == 4 and r.workers() == [worker]
