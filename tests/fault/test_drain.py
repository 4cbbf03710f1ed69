"""TERM: running stages finish and are stored, what has not begun is handed back, the programs end with 0."""

import signal
import threading

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


def test_drain_has_an_end(new_rig):
    """A call that does not end is given up after `drain`; its job is handed back, not lost, and not charged.
    Fails with: core/work/worker.c, worker_drain: no scope_cancel() of the lanes."""
    r = new_rig(workers=1, pipelines={"books": ledger.BOOKS}, config={"drain": "500ms", "lease": "60s"})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=5)
    jobs = ledger.submit(r, 5)
    r.sim.wait(held=5)
    r.daemon.send(signal.SIGTERM)
    r.sim.wait(client_closed=5)
    assert r.daemon.wait() == 0
    r.daemon.stop()
    r.start_daemon()
    r.until_ready()
    ledger.assert_done(r, jobs, repeated=jobs, patience=20)


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
