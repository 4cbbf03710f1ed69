"""kill -9 of worker processes while their jobs wait for the model in the third of four stages."""

import signal

import ledger
import rig as rigs

JOBS = 40


def held_in_second(r, count=JOBS):
    """`count` jobs whose first stages are stored and whose second call is in flight; calls after these are answered."""
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=count)
    jobs = ledger.submit(r, count)
    r.sim.wait(held=count)
    return jobs


def test_all_workers_killed(new_rig):
    """The lease of a minute is longer than this test waits: the children of the same master go on at once.
    Fails with: core/app/supervisor.c, supervisor_reap: `if (false) supervisor_schedule(sup, child);`"""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS}, config={"lease": "60s"})
    jobs = held_in_second(r)
    killed = r.workers()
    assert len(killed) == 2
    r.kill(killed)
    for pid in killed:
        rigs.until_gone(pid)
    # Every call in flight is asked again, and nothing else.
    r.sim.wait(requests=3 * JOBS)
    ledger.assert_done(r, jobs, repeated=jobs)
    assert not set(killed) & set(r.workers()) and len(r.workers()) == 2


def test_one_worker_killed(new_rig):
    """The other worker's calls are asked once; the dead one's again, at once, by the child that takes its name.
    Fails with: core/work/worker.c, worker_main: `worker->look_at_own = false;` before the services begin."""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS}, config={"lease": "60s"})
    jobs = held_in_second(r)
    holders = {n: r.redis.hget(f"mr:{{0}}:job:{id}", "l:1").split()[5] for n, id in jobs.items()}
    victims = {n for n, holder in holders.items() if holder.endswith("/w1")}
    assert victims and len(victims) < JOBS, holders
    killed = r.workers()[0]
    r.kill(killed)
    rigs.until_gone(killed)
    r.sim.wait(requests=2 * JOBS + len(victims))
    r.sim.release()
    ledger.assert_done(r, jobs, repeated=victims, patience=20)


def test_killed_again_and_again(new_rig):
    """Five kills one after the other: takeovers charge nobody (SIGKILL names no culprit), so nothing becomes poison.
    Fails with: core/state/begin.lua: `l.crashes = l.crashes + 1` for takeovers too."""
    r = new_rig(workers=1, pipelines={"books": ledger.BOOKS})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"})
    jobs = ledger.submit(r, 5)
    r.sim.wait(held=5)
    for _ in range(5):
        mark = len(r.daemon.lines)
        r.kill(r.workers())
        r.daemon.wait_line("worker 1: ready", since=mark)
        r.sim.wait(held=1)
    r.sim.control("DELETE", "rules")
    r.sim.release()
    for id in jobs.values():
        assert r.wait_job(id)["status"] == "completed"
    counts = ledger.asked(r.sim)
    assert all(counts[f"first of {n}"] == 1 for n in jobs), counts
    assert all(ledger.rows(r)[(n, "noted")] == 1 for n in jobs)


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


def test_master_killed(new_rig):
    """The children see the lifeline end, drain and go; a new daemon goes on with what was not done.
    Fails with: core/loop/stop.c, stop_watch: `if (lifeline_fd >= -1)` before the return that leaves the lifeline alone."""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS}, config={"drain": "1s", "lease": "2s"})
    jobs = held_in_second(r)
    children = rigs.children_of(r.daemon.pid)
    r.kill(r.daemon.pid)
    for pid in children:
        rigs.until_gone(pid)
    r.daemon.stop()
    r.start_daemon()
    r.until_ready()
    ledger.assert_done(r, jobs, repeated=jobs)
