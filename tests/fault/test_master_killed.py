"""kill -9 of the master: its children drain by the lifeline, a new master beside them takes over, nothing is lost or doubled."""

import signal

import ledger
import rig as rigs

JOBS = 40


def held_in_second(r, count=JOBS):
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=count)
    jobs = ledger.submit(r, count)
    r.sim.wait(held=count)
    return jobs


def kill_master(r):
    """The pids of its children, which are alone now."""
    children = rigs.children_of(r.daemon.pid)
    r.kill(r.daemon.pid)
    r.daemon.process.wait()
    return children


def start_beside(r):
    """A new master at once, as an init system starts it: the socket's file and the lock's are as the old one left them."""
    old = r.daemon
    r.daemon = rigs.Process(
        "millrace-fcgi", [rigs.BUILD / "bin" / "millrace-fcgi", "-c", r.config_file], r.folder / "log" / "second.log",
        env=rigs.marked(r.folder), cwd=r.folder)
    r.daemon.wait_line("worker 1: ready")
    r.until_ready()
    return old


def test_children_drain_without_a_master(new_rig):
    """Nobody starts a new master: the children see the lifeline end, wait for their calls, store them, and go.
    Fails with: core/loop/stop.c, stop_watch: `if (lifeline_fd >= -1)` before the return that leaves the lifeline alone."""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS}, config={"drain": "60s", "lease": "60s"})
    jobs = held_in_second(r)
    children = kill_master(r)
    front = next(pid for pid, title in children.items() if "front" in title)
    rigs.until_gone(front)
    r.sim.release()
    for pid in children:
        rigs.until_gone(pid)
    assert r.sim.stats()["client_closed"] == 0
    for id in jobs.values():
        assert r.redis.hget(f"mr:{{0}}:job:{id}", "status") == "completed"
    r.daemon.stop()
    r.start_daemon()
    r.until_ready()
    ledger.assert_done(r, jobs)


def test_calls_that_outlast_the_drain(new_rig):
    """What has not ended within `drain` is handed back by the children, and a new daemon goes on with it at once.
    Fails with: core/work/worker.c, worker_drain: no scope_cancel() of the lanes."""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS}, config={"drain": "1s", "lease": "60s"})
    jobs = held_in_second(r)
    children = kill_master(r)
    for pid in children:
        rigs.until_gone(pid)
    r.daemon.stop()
    r.start_daemon()
    r.until_ready()
    ledger.assert_done(r, jobs, repeated=jobs)


def test_new_master_beside_the_old_ones_children(new_rig):
    """A new master starts at once, while the old one's children drain with calls in flight: it takes over socket and lock,
    answers HTTP, gives its workers other names, and takes no lane from the living; new jobs run beside the old ones.
    Fails with: core/app/listener.c, listener_lock: no O_CLOEXEC (the children keep the lock); and core/state/enroll.lua:
    `if false and there` (two workers of one name)."""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS}, config={"drain": "60s", "lease": "2s"})
    jobs = held_in_second(r)
    names = {r.redis.hget(f"mr:{{0}}:job:{id}", "l:1").split()[5] for id in jobs.values()}
    children = kill_master(r)
    old = start_beside(r)
    assert r.get("/healthz").status == 200
    others = {line.group(1) for line in (r.daemon.wait_line(f"worker {i}: ready.*worker=(\\S+)") for i in (1, 2))}
    assert others and not others & names, (others, names)
    more = ledger.submit(r, 10, "more")
    ledger.assert_done(r, more)
    # Leases of the draining children are renewed all the while: longer than a lease has passed, nothing was taken.
    r.until(lambda: "lanes in hand" in old.tail() or "draining" in old.tail())
    began = r.redis.time()[0]
    r.until(lambda: r.redis.time()[0] > began + 5)
    for n, id in jobs.items():
        assert r.redis.hget(f"mr:{{0}}:job:{id}", "l:1").split()[5] in names, n
    r.sim.release()
    for pid in children:
        rigs.until_gone(pid)
    ledger.assert_done(r, jobs)
    assert r.sim.stats()["client_closed"] == 0
    old.stop()


def test_new_master_while_the_old_ones_children_are_killed(new_rig):
    """The old children die too, some time after their master: the new master's workers take their lanes when the leases
    are over, once.
    Fails with: core/state/claim.c, lane_reclaim: `} else if (false && over++ < max) {`"""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS}, config={"drain": "60s", "lease": "2s"})
    jobs = held_in_second(r)
    children = kill_master(r)
    old = start_beside(r)
    r.kill([pid for pid, title in children.items() if "worker" in title], signal.SIGKILL)
    for pid in children:
        rigs.until_gone(pid)
    ledger.assert_done(r, jobs, repeated=jobs)
    assert all(count <= 2 for count in ledger.asked(r.sim).values())
    old.stop()
