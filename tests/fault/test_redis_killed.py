"""kill -9 of Redis (append-only file, every write synced) while jobs are in the middle of a stage; then it comes back."""

import signal

import ledger
import samples


def test_redis_killed_and_back(new_rig):
    """The model's answers come while Redis is away: they are committed when it is back, and nothing is asked again.
    Fails with: core/state/store.c, store_open: `store->patience_ms = 5;`"""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS}, appendonly="always", config={"lease": "5s"})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=30)
    jobs = ledger.submit(r, 30)
    r.sim.wait(held=30)
    r.kill_redis()
    # Answers arrive in the workers, which cannot store them now.
    r.sim.release()
    r.sim.wait(ended=60)
    assert r.submit("books", {"n": "away."}, status=None).status == 503
    workers = r.workers()
    r.start_redis()
    r.until_ready()
    ledger.assert_done(r, jobs)
    assert r.workers() == workers, "no process may end because Redis was away"
    assert all(count == 1 for count in ledger.asked(r.sim).values())
    more = ledger.submit(r, 5, "more")
    ledger.assert_done(r, more)


def test_events_of_an_outage_are_read_from_the_log(new_rig):
    """The front is stopped while Redis goes, comes back, and the job ends: what was published meanwhile it never hears.
    It reads the log again, well before its slow look at it every 5 s.
    Fails with: core/state/watch.c, on_message: `watch->must_read = false;` when there is no text."""
    r = new_rig(workers=1, pipelines={"ask": samples.ask()}, appendonly="always")
    r.sim.rule({"hold": True})
    id = r.submit("ask", {"say": "through the outage"})["id"]
    r.sim.wait(held=1)
    with r.stream(f"/api/v1/jobs/{id}/events", patience=4) as stream:
        seen = stream.until("stage.started")
        front = r.front()
        r.kill(front, signal.SIGSTOP)
        r.kill_redis()
        r.start_redis()
        r.sim.release()
        r.until(lambda: r.redis.hget(f"mr:{{0}}:job:{id}", "status") == "completed")
        r.kill(front, signal.SIGCONT)
        seen += list(stream)
    assert [e.number for e in seen] == list(range(1, len(seen) + 1)), seen
    assert seen[-1].kind == "job.completed"


def test_both_killed(new_rig):
    """Redis and every worker at once: what was stored stays stored.
    Fails with: core/work/worker.c, worker_join: `const char *reaped = NULL;` (the lease of a minute would decide)."""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS}, appendonly="always", config={"lease": "60s"})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=30)
    jobs = ledger.submit(r, 30)
    r.sim.wait(held=30)
    r.kill_redis()
    r.kill(r.workers())
    r.sim.wait(client_closed=30)
    r.start_redis()
    r.until_ready()
    ledger.assert_done(r, jobs, repeated=jobs, patience=20)
