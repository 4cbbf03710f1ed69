"""kill -9 of worker processes, of one host and of another, while their jobs wait for the model in the third of four stages."""

import ledger
import rig as rigs
import samples
from hosts import Host

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


def order(sim, first):
    """What was asked after the first `first` requests, in order."""
    return [e["text"] for e in sim.journal()][first:]


def test_recovered_before_the_backlog(new_rig):
    """A worker is killed with ten lanes in hand while a hundred jobs are queued behind them: its successor begins those
    ten before any of the hundred.
    Fails with: core/work/claim.c, claim_fiber: `if (worker->look_at_own && round > 0)`"""
    r = new_rig(workers=1, pipelines={"ask": samples.ask()}, config={"lease": "60s", "concurrency": 10})
    r.sim.rule({"hold": True})
    lost = [r.submit("ask", {"say": f"lost {i}"})["id"] for i in range(10)]
    r.sim.wait(held=10)
    backlog = [r.submit("ask", {"say": f"backlog {i}"})["id"] for i in range(100)]
    r.kill(r.workers())
    r.sim.wait(requests=20)
    assert sorted(order(r.sim, 10)) == [f"lost {i}" for i in range(10)]
    r.sim.control("DELETE", "rules")
    r.sim.release()
    for id in lost + backlog:
        assert r.wait_job(id, patience=60)["status"] == "completed"
    counts = ledger.asked(r.sim)
    assert all(counts[f"backlog {i}"] == 1 for i in range(100)) and all(counts[f"lost {i}"] == 2 for i in range(10)), counts


def test_another_host_killed(new_rig):
    """Every process of a host is killed at once, master and front too: within the lease another host goes on, once each.
    Fails with: core/state/claim.c, lane_reclaim: `} else if (false && over++ < max) {`"""
    r = new_rig(workers=1, pipelines={"books": ledger.BOOKS}, config={"lease": "2s"}, start=False)
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=JOBS)
    with Host(r, "lost", workers=2) as host:
        jobs = {f"n{i}.": host.submit("books", {"n": f"n{i}."})["id"] for i in range(JOBS)}
        r.sim.wait(held=JOBS)
        r.start_daemon()
        r.start_lighttpd()
        r.until_ready()
        more = ledger.submit(r, 10, "more")
        ledger.assert_done(r, {k: more[k] for k in more if r.wait_job(more[k], patience=60)["status"] == "completed"})
        host.kill_all()
    ledger.assert_done(r, jobs, repeated=jobs)
    assert all(count == 2 for text, count in ledger.asked(r.sim).items() if text.startswith("second of n"))


def test_another_host_killed_before_a_backlog(new_rig):
    """The host that is left has all its slots taken and two hundred jobs queued: each slot that becomes free goes to a
    lane of the host that was killed, until none is left of them.
    Fails with: core/work/claim.c, reclaim_sweep: `worker->owes = false;`"""
    r = new_rig(workers=1, pipelines={"ask": samples.ask()}, config={"lease": "2s", "concurrency": 10}, start=False)
    r.sim.rule({"hold": True})
    with Host(r, "lost", workers=2) as host:
        lost = [host.submit("ask", {"say": f"lost {i}"})["id"] for i in range(20)]
        r.sim.wait(held=20)
        r.config["concurrency"] = 4
        r.write_config()
        r.start_daemon()
        r.start_lighttpd()
        r.until_ready()
        backlog = [r.submit("ask", {"say": f"backlog {i}"})["id"] for i in range(200)]
        r.sim.wait(held=24)
        host.kill_all()
    r.sim.wait(client_closed=20)
    r.daemon.wait_line("leases are over, and no slot is free")
    for begun in range(0, 20, 4):
        r.sim.wait(requests=24 + begun)
        r.sim.release(4)
    r.sim.wait(requests=44)
    assert sorted(order(r.sim, 24)[:20]) == sorted(f"lost {i}" for i in range(20)), order(r.sim, 24)
    r.sim.control("DELETE", "rules")
    for id in lost + backlog:
        r.sim.release()
        assert r.wait_job(id, patience=60)["status"] == "completed"
    counts = ledger.asked(r.sim)
    assert all(counts[f"backlog {i}"] == 1 for i in range(200)), counts
