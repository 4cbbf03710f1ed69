"""TERM: running stages finish and are stored, what has not ended in time is handed back, the programs end with 0. INT: at
once. Neither costs a job anything."""

import signal
import threading

import pytest

import ledger
import rig as rigs
import samples


def test_term_drains(new_rig):
    """Fails with: core/work/worker.c, worker_drain: `if (false) wait_for(&wait, worker->setup->drain_ms);`"""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS}, config={"drain": "20s", "lease": "2s"})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=20)
    jobs = ledger.submit(r, 20)
    r.sim.wait(held=20)
    children = rigs.children_of(r.daemon.pid)
    r.daemon.send(signal.SIGTERM)
    # The front goes, the workers wait for their calls.
    front = next(pid for pid, title in children.items() if "front" in title)
    rigs.until_gone(front)
    r.sim.release()
    assert r.daemon.wait() == 0
    for pid in children:
        rigs.until_gone(pid)
    r.daemon.stop()
    stats = r.sim.stats()
    assert stats["client_closed"] == 0 and stats["requests"] == 40, stats
    r.start_daemon()
    r.until_ready()
    ledger.assert_done(r, jobs)


def lanes(r, jobs):
    """The words of each job's first lane: state queue class entry fence worker crashes takeovers refused stages."""
    return [r.redis.hget(f"mr:{{0}}:job:{id}", "l:1").split() for id in jobs.values()]


def assert_handed_back(r, jobs):
    """Each lane is queued in class recovered, nobody's, and nothing is held against it; no worker has anything."""
    for lane in lanes(r, jobs):
        assert (lane[0], lane[2]) == ("q", "recovered") and lane[4:8] == ["-", "-", "0", "0"], lane
    assert r.redis.xlen("mr:{0}:queue:default:recovered") == len(jobs)
    for name in ("recovered", "normal"):
        assert r.redis.xpending(f"mr:{{0}}:queue:default:{name}", "workers")["pending"] == 0


def assert_one_attempt(r, jobs):
    for id in jobs.values():
        job = r.job(id)
        assert all(stage["attempts"] == 1 for stage in job["stages"].values()), job
        assert not [e for e in r.events(id).json["data"] if e["event"] in ("stage.retrying", "stage.failed")]


def test_drain_has_an_end(new_rig):
    """A call that does not end is given up after `drain`; its job is handed back, not lost, not charged, and goes before
    what was queued when the next daemon begins.
    Fails with: core/work/worker.c, worker_drain: no scope_cancel() of the lanes; and, for the order, with
    core/state/handback.lua: `key('queue:' .. l.queue .. ':low')`, or core/work/claim.c, claim_fiber: no claim_recovered()."""
    r = new_rig(workers=1, pipelines={"books": ledger.BOOKS}, config={"drain": "500ms", "lease": "60s", "concurrency": 5})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=5)
    jobs = ledger.submit(r, 5)
    r.sim.wait(held=5)
    queued = ledger.submit(r, 20, "queued")
    r.daemon.send(signal.SIGTERM)
    r.sim.wait(client_closed=5)
    assert r.daemon.wait() == 0
    r.daemon.stop()
    assert_handed_back(r, jobs)
    r.start_daemon()
    r.until_ready()
    ledger.assert_done(r, {**jobs, **queued}, repeated=jobs, patience=20)
    assert_one_attempt(r, {**jobs, **queued})
    order = [e["text"] for e in r.sim.journal()][10:]
    began = [order.index(f"second of {n}") for n in jobs]
    assert max(began) < 10 and "first of" not in " ".join(order[:5]), order


def test_term_claims_no_more(new_rig):
    """What is queued stays queued while a worker drains, however many slots become free.
    Fails with: core/work/worker.c, worker_on_stop: no scope_cancel() of the worker's services."""
    r = new_rig(workers=1, pipelines={"ask": samples.ask()}, config={"drain": "60s", "lease": "60s", "concurrency": 5})
    r.sim.rule({"hold": True})
    running = [r.submit("ask", {"say": f"running {i}"})["id"] for i in range(5)]
    r.sim.wait(held=5)
    queued = [r.submit("ask", {"say": f"queued {i}"})["id"] for i in range(20)]
    r.daemon.send(signal.SIGTERM)
    r.daemon.wait_line("draining: 5 lanes")
    r.sim.release(4)
    r.sim.wait(ended=4)
    r.until(lambda: r.redis.xlen("mr:{0}:queue:default:normal") == 21)
    assert r.sim.stats()["requests"] == 5
    r.sim.release()
    assert r.daemon.wait() == 0
    r.daemon.stop()
    assert r.sim.stats()["requests"] == 5 and r.redis.xlen("mr:{0}:queue:default:normal") == 20
    assert r.redis.xpending("mr:{0}:queue:default:normal", "workers")["pending"] == 0
    r.sim.control("DELETE", "rules")
    r.start_daemon()
    r.until_ready()
    for id in running + queued:
        assert r.wait_job(id)["status"] == "completed"
    assert all(count == 1 for count in ledger.asked(r.sim).values())


def test_a_second_term_changes_nothing(new_rig):
    """Impatience does not cut a drain short: the calls are waited for.
    Fails with: core/loop/stop.c, stop_on_signal: `stop_tell(stop, stop->kind ? STOP_NOW : STOP_DRAIN)`"""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS}, config={"drain": "60s", "lease": "60s"})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=10)
    jobs = ledger.submit(r, 10)
    r.sim.wait(held=10)
    workers = r.workers()
    for turn in range(3):
        r.daemon.send(signal.SIGTERM)
        r.daemon.wait_line("draining: ")
        for pid in workers:
            r.kill(pid, signal.SIGTERM)
    assert r.sim.stats()["client_closed"] == 0
    r.sim.release()
    assert r.daemon.wait() == 0
    r.daemon.stop()
    for id in jobs.values():
        assert r.redis.hget(f"mr:{{0}}:job:{id}", "status") == "completed"
    assert r.sim.stats()["client_closed"] == 0
    r.start_daemon()
    r.until_ready()
    ledger.assert_done(r, jobs)


@pytest.mark.parametrize("first", [None, signal.SIGTERM])
def test_int_stops_at_once(new_rig, first):
    """INT, alone or during a drain of an hour: calls are closed now, jobs handed back, uncharged.
    Fails with: core/loop/stop.c, stop_on_signal: `stop_tell(stop, STOP_DRAIN)` for SIGINT."""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS}, config={"drain": "1h", "lease": "60s"})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=10)
    jobs = ledger.submit(r, 10)
    r.sim.wait(held=10)
    if first:
        r.daemon.send(first)
        r.daemon.wait_line("draining: ")
    r.daemon.send(signal.SIGINT)
    r.sim.wait(client_closed=10, patience=15)
    assert r.daemon.wait() == 0
    r.daemon.stop()
    assert_handed_back(r, jobs)
    r.start_daemon()
    r.until_ready()
    ledger.assert_done(r, jobs, repeated=jobs)
    assert_one_attempt(r, jobs)


def test_submissions_during_a_drain_are_refused_or_kept(new_rig):
    """Whatever was answered with 202 while the daemon stopped is there afterwards.
    Fails with: fcgi/submission.c, submission_send: `int rc = (memset(ret, 0, sizeof *ret), (void)err, MR_OK);`"""
    r = new_rig(workers=1, pipelines={"books": ledger.BOOKS}, config={"drain": "5s"})
    ledger.prepare(r)
    taken, statuses, stop = {}, set(), threading.Event()

    def client(number):
        for i in range(2000):
            if stop.is_set():
                return
            n = f"c{number}-{i}."
            try:
                reply = r.http("POST", "/api/v1/jobs", {"pipeline": "books", "input": {"n": n}})
            except OSError:
                return
            statuses.add(reply.status)
            if reply.status == 202:
                taken[n] = reply.json["id"]
            else:
                return

    threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    r.sim.wait(requests=100)
    r.daemon.send(signal.SIGTERM)
    assert r.daemon.wait() == 0
    stop.set()
    for thread in threads:
        thread.join(rigs.PATIENCE)
    r.daemon.stop()
    assert statuses <= {202, 502, 503, 500}, statuses
    r.start_daemon()
    r.until_ready()
    assert taken
    ledger.assert_done(r, taken, repeated=taken)


def test_stop_without_redis(new_rig):
    """TERM, and the loss of the master, while Redis is away: everything ends soon, however many queues there are.
    Fails with: core/work/worker.c, worker_main: `if (true)` before claim_hand_back()."""
    queues = {f"p{i}": {**samples.ECHO, "stages": [{"name": "say", "plugin": "echo", "queue": f"q{i}"}]} for i in range(4)}
    for number, victim in ((signal.SIGTERM, "daemon"), (signal.SIGKILL, "master")):
        r = new_rig(workers=2, pipelines=queues)
        children = rigs.children_of(r.daemon.pid)
        assert len(children) == 3
        for name in ("worker 1", "worker 2"):
            r.daemon.wait_line(f"{name}: ready")
        r.kill_redis()
        for name in ("worker 1", "worker 2"):
            r.daemon.wait_line(f"{name}: Redis is away")
        r.kill(r.daemon.pid, number)
        status = r.daemon.wait(10)
        assert status == (0 if number == signal.SIGTERM else -signal.SIGKILL), (victim, status)
        for pid in children:
            rigs.until_gone(pid, patience=10)
