"""Redis forgets the end of its history: the rows of "When Redis forgets" in docs/reliability.md, one by one.

`appendfsync everysec` loses about the last second in a power cut, a failover what the replica had not received: always a
suffix of scripts. Here the suffix is chosen: Redis is killed, its append-only file is cut before the script in question, or
in the middle of it (as aof-load-truncated mends it), and Redis is started again. What the clients and the workers know is
then newer than what Redis knows.
"""

import aof
import outage
import pytest

import ledger
import samples

CUT = pytest.mark.parametrize("inside", [False, True], ids=["between scripts", "inside one"])


def lose(rig, *parts, inside=False):
    """Redis without the first script that wrote a command with all these parts, and without what came later."""
    rig.kill_redis()
    lost = aof.cut_before(rig.folder / "redis", *parts, inside=inside)
    rig.start_redis()
    rig.until_ready()
    return lost


def make(new_rig, workers=1, **config):
    r = new_rig(workers=workers, appendonly="always", pipelines={"books": ledger.BOOKS, "ask": samples.ask()},
                config={"lease": "1500ms", **config})
    ledger.prepare(r)
    return r


def hold_second(r, n="n."):
    """One job whose second call is held by the model."""
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=1)
    id = r.submit("books", {"n": n})["id"]
    r.sim.wait(held=1)
    return id


@CUT
def test_a_submit(new_rig, inside):
    """404; its worker is told LOST and drops it; submitted again it has the same id and runs.
    Fails with: core/work/keeper.c, keeper_tell: `if (false && news->verdict == LANE_LOST ...`."""
    r = make(new_rig)
    r.sim.rule({"hold": True}, {"contains": "forgotten"}, times=1)
    id = r.submit("ask", {"say": "forgotten"})["id"]
    r.sim.wait(held=1)
    lose(r, f"log:{id}", "job.queued", inside=inside)
    assert r.job(id, status=404)
    r.sim.wait(client_closed=1)
    again = r.submit("ask", {"say": "forgotten"})["id"]
    assert again == id and r.wait_job(id)["status"] == "completed"
    assert ledger.asked(r.sim)["forgotten"] == 2


@CUT
def test_a_begin(new_rig, inside):
    """The worker that runs the lane is told LOST, looks at what is pending with it and begins again: the stage runs twice.
    Fails with: core/work/work_lane.c, work_lane_unlink: `if (lane->is_claimed)` (nobody looks; the lease decides, and
    counts a takeover)."""
    r = make(new_rig, lease="4s")
    r.sim.rule({"hold": True}, {"contains": "begun"}, times=1)
    id = r.submit("ask", {"say": "begun"})["id"]
    r.sim.wait(held=1)
    lose(r, f"log:{id}", "stage.started", inside=inside)
    assert r.wait_job(id)["status"] == "completed"
    assert ledger.asked(r.sim)["begun"] == 2
    assert "taken over" not in r.daemon.tail(100000)


@CUT
def test_a_commit(new_rig, inside):
    """The next commit is answered with the stages of before; what is known in memory is committed again: no call of the
    model is repeated, no row written twice.
    Fails with: core/work/work_ops.c, where what Redis forgot is committed again: without it."""
    r = make(new_rig)
    id = hold_second(r)
    lose(r, f"log:{id}", "stage.completed", '"stage":"first"', inside=inside)
    r.sim.release()
    ledger.assert_done(r, {"n.": id})


@CUT
def test_the_end(new_rig, inside):
    """A job that was seen completed goes on from its last checkpoint: the stage whose commit was the last runs again, the
    model is not asked again.
    Fails with: core/work/worker.c, worker_on_redis: `worker->look_at_own = false;` (the lease of a minute decides)."""
    r = make(new_rig, lease="60s")
    id = r.run("books", {"n": "n."})["id"]
    lose(r, f"log:{id}", "job.completed", inside=inside)
    assert r.job(id)["status"] == "processing"
    job = r.wait_job(id, patience=30)
    assert job["status"] == "completed" and job["result"]["n"] == "n.", job
    assert set(ledger.asked(r.sim).values()) == {1}
    assert ledger.rows(r)[("n.", "booked")] == 2 and ledger.rows(r)[("n.", "noted")] == 1


@CUT
def test_a_handback(new_rig, inside):
    """A worker that stopped had handed its lane back, and Redis knows nothing of it: the lane runs under a fence that
    nobody renews, and is taken over after the lease.
    Fails with: core/work/claim.c, reclaim_fiber: `for (; false;)`."""
    r = make(new_rig, drain="100ms")
    id = hold_second(r)
    assert r.stop_daemon() == 0
    assert r.redis.xlen("mr:{0}:queue:default:recovered") == 1
    r.kill_redis()
    aof.cut_before(r.folder / "redis", "queue:default:recovered", id, inside=inside)
    r.start_redis()
    assert [(state, takeovers) for state, _, takeovers in outage.lanes(r, id)] == [("r", 0)]
    r.start_daemon()
    r.until_ready()
    ledger.assert_done(r, {"n.": id}, repeated=["n."])


@CUT
def test_a_cancel(new_rig, inside):
    """202 was answered and the call was broken off; Redis knows nothing of it: the job runs on and completes.
    Fails with: core/state/drop.lua: an XACK alone in place of lane_back (what is winding up is not given back)."""
    r = make(new_rig, lease="60s")
    id = hold_second(r)
    assert r.post(f"/api/v1/jobs/{id}/cancel").status in (200, 202)
    r.sim.wait(client_closed=1)
    lose(r, f"job:{id}", "stop", "cancelled", inside=inside)
    ledger.assert_done(r, {"n.": id}, repeated=["n."], patience=30)


@CUT
def test_events_that_were_sent(new_rig, inside):
    """A stream has shown more events than Redis knows now. It goes on from what there is: numbers come again from where the
    log ends, without a gap, up to the end.
    Fails with: core/state/watch.c, read_log: `watch->position = total;` (what is new under old numbers is not shown)."""
    r = make(new_rig)
    id = hold_second(r)

    def follow():
        with r.stream(f"/api/v1/jobs/{id}/events", patience=60) as stream:
            return list(stream)

    watcher = outage.Background(follow)
    r.until(lambda: r.redis.pubsub_numsub(f"mr:{{0}}:watch:{id}")[0][1] == 1)
    known = r.redis.llen(f"mr:{{0}}:log:{id}")
    lose(r, f"log:{id}", "stage.completed", '"stage":"first"', inside=inside)
    left = r.redis.llen(f"mr:{{0}}:log:{id}")
    assert left < known
    # The stream has looked again (nobody else reads a list here) before the worker writes more.
    r.until(lambda: "cmdstat_lrange" in r.redis.info("commandstats"))
    r.sim.release()
    events = watcher.result()
    numbers = [e.number for e in events]
    assert events[-1].kind == "job.completed" and numbers[:known] == list(range(1, known + 1)), events
    for before, number in zip(numbers, numbers[1:]):
        assert number == before + 1 or number == left + 1, numbers
    assert numbers.count(left + 1) == 2, numbers
    total = r.redis.llen(f"mr:{{0}}:log:{id}")
    assert numbers[-1] == total and set(numbers) == set(range(1, total + 1)), numbers
