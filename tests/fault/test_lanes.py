"""Corners of lanes and leases: what a worker must not keep, lose or give up when something beside it goes wrong."""

import signal

import ledger
import rig as rigs
import samples

MISBEHAVE = {"plugins": [str(rigs.BUILD / "plugins"), str(rigs.BUILD / "tests" / "plugins")]}
NAP = {"stages": [{"name": "nap", "plugin": "sleep", "options": {"for": "100ms"}}], "result": {"napped": True}}


def parent(target="child", timeout="25s", **stage):
    return {"stages": [{"name": "ask", "plugin": "reward", "timeout": "30s", **stage, "options": {"targets": [
        {"name": "child", "mode": "call", "pipeline": target, "timeout": timeout, "input": {"n": "{{ .input.n }}"}}]}}],
        "result": "{{ .ask.child }}"}


def keys(r, pattern):
    return list(r.redis.scan_iter(pattern, count=1000))


def test_waiting_parents_leave_room_for_their_children(new_rig):
    """More waiting parents than fibers_max: children of calls are claimed all the same, or all would wait for ever.
    Fails with: core/work/worker.c, worker_free_slots: no slots for any class above fibers_max."""
    r = new_rig(workers=1, pipelines={"parent": parent("middle"), "middle": parent("child"), "child": NAP},
                config={"concurrency": 20, "limits": {"fibers_max": 100}})
    jobs = [r.submit("parent", {"n": f"p{i}"})["id"] for i in range(300)]
    for id in jobs:
        job = r.wait_job(id, patience=60)
        assert job["status"] == "completed" and job["result"] == {"napped": True}, job


def test_revision_that_cannot_be_read_now(new_rig):
    """Redis refuses to give the source of a job's revision: the job waits until it does, it does not fail.
    Fails with: core/work/work_lane.c, work_lane_begin: any error of revision_fetch refuses the lane."""
    one = {"stages": [samples.model("ask", "ask {{ .input.n }}", retry={"attempts": 9, "backoff": "50ms"})],
           "result": "one"}
    r = new_rig(workers=1, pipelines={"change": one}, config={"drain": "1s"})
    r.sim.rule({"hold": True})
    id = r.submit("change", {"n": "1"})["id"]
    r.sim.wait(held=1)
    r.stop_daemon()
    r.write_pipeline("change", {**one, "result": "two"})
    r.sim.control("DELETE", "rules")
    source = "mr:{rev:" + r.redis.hget(f"mr:{{0}}:job:{id}", "rev") + "}"
    text = r.redis.get(source)
    r.redis.delete(source)
    r.redis.rpush(source, "no text")
    r.start_daemon()
    r.until_ready()
    r.daemon.wait_line("revision could not be read|lane refused")
    r.redis.delete(source)
    r.redis.set(source, text)
    job = r.wait_job(id)
    assert (job["status"], job["result"]) == ("completed", "one"), job


def test_pipeline_of_other_hosts_only(new_rig):
    """A worker that does not have the pipeline of a fresh job parks it for one that does.
    Fails with: core/work/work_lane.c, work_lane_refuse: a job without a revision is failed."""
    r = new_rig(workers=1, pipelines={"here": samples.ECHO, "there": samples.ECHO})
    id = r.submit("there", {"n": 1}, delay="1s")["id"]
    r.stop_daemon()
    (r.folder / "pipelines" / "there.json").rename(r.folder / "there.json")
    r.start_daemon()
    r.until_ready()
    r.daemon.wait_line("parked|lane refused", patience=10)
    job = r.redis.hgetall(f"mr:{{0}}:job:{id}")
    assert job["status"] != "failed" and not job.get("rev") and "rev" not in job, job
    r.stop_daemon()
    (r.folder / "there.json").rename(r.folder / "pipelines" / "there.json")
    r.start_daemon()
    r.until_ready()
    assert r.wait_job(id)["status"] == "completed"


def test_second_master_beside_the_first_ones_workers(new_rig):
    """Workers of a master that was killed keep their names while they drain; those of the next master get others. When
    one of these is killed, its successor takes over at once: the lease of a minute is longer than this test.
    Fails with: core/state/worker.c, worker_enroll: the reaped worker's own name is not tried first."""
    r = new_rig(workers=1, pipelines={"books": ledger.BOOKS}, config={"drain": "60s", "lease": "60s"})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"})
    first = ledger.submit(r, 1, "a")
    r.sim.wait(held=1)
    old = rigs.children_of(r.daemon.pid)
    r.kill(r.daemon.pid)
    r.daemon.process.wait()
    r.start_daemon()
    r.until_ready()
    second = ledger.submit(r, 1, "b")
    r.sim.wait(held=2)
    r.sim.release(1)
    for pid in old:
        rigs.until_gone(pid)
    r.kill(r.workers())
    r.sim.wait(requests=5, patience=10)
    r.sim.control("DELETE", "rules")
    r.sim.release()
    ledger.assert_done(r, {**first, **second}, repeated=second, patience=20)


def test_successor_dies_before_it_registers(new_rig):
    """A worker dies with a lane, and so does its successor, before it could register: the third takes over at once.
    Fails with: core/app/supervisor.c, supervisor_charge: the instance that never registered replaces the one that did."""
    r = new_rig(workers=1, pipelines={"books": ledger.BOOKS}, config={"lease": "60s"})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"})
    jobs = ledger.submit(r, 1)
    r.sim.wait(held=1)
    r.redis_process.send(signal.SIGSTOP)
    first = r.workers()
    r.kill(first)
    second = r.until(lambda: [pid for pid in r.workers() if pid not in first])
    r.kill(second)
    r.daemon.wait_line("died before it was ready")
    r.redis_process.send(signal.SIGCONT)
    r.sim.wait(requests=3, patience=15)
    r.sim.control("DELETE", "rules")
    r.sim.release()
    ledger.assert_done(r, jobs, repeated=jobs, patience=20)


def test_stopped_while_a_stage_holds_the_loop(new_rig):
    """Time in which the whole process was stopped is not time in which a stage held the loop: nobody is charged.
    Fails with: core/work/keeper.c, keeper_watch: without `floor_us`."""
    hold = {"stages": [{"name": "hold", "plugin": "misbehave", "options": {"how": "spin", "for": "1s"}}]}
    r = new_rig(workers=2, pipelines={"hold": hold}, config={**MISBEHAVE, "lease": "9s", "stall": "7s"})
    id = r.submit("hold", {"n": 1})["id"]
    at = r.daemon.wait_line(r"worker (\d): .*a stage holds the loop")
    stopped = r.workers()[int(at.group(1)) - 1]
    mark = len(r.daemon.lines)
    r.kill(stopped, signal.SIGSTOP)
    r.daemon.wait_line("taken over", since=mark)
    r.wait_job(id)
    mark = len(r.daemon.lines)
    r.kill(stopped, signal.SIGCONT)
    r.daemon.wait_line("lost to another worker|child died", since=mark)
    assert stopped in r.workers(), r.daemon.tail()


def test_claimed_again_while_it_runs(new_rig):
    """Redis forgets that a lane was begun (a failover): the worker claims the entry again while it still runs it. It is
    told at the next renewal that the lane is lost, and begins the entry at once, not a lease later.
    Fails with: core/work/work_lane.c, work_lane_unlink: without `look_at_own`."""
    r = new_rig(workers=1, pipelines={"ask": samples.ask(timeout="1h")}, config={"lease": "30s"})
    r.sim.rule({"hold": True})
    id = r.submit("ask", {"say": "hello"})["id"]
    r.sim.wait(held=1)
    job, stream = f"mr:{{0}}:job:{id}", "mr:{0}:queue:default:normal"
    words = r.redis.hget(job, "l:1").split()
    entry = words[3]
    words[0], words[4], words[5] = "q", "-", "-"
    r.redis.xack(stream, "workers", entry)
    r.redis.hset(job, "l:1", " ".join(words))
    r.redis.hset(job, "status", "queued")
    r.redis.execute_command("XGROUP", "SETID", stream, "workers", "0")
    r.until(lambda: r.redis.xpending(stream, "workers")["pending"] == 1)
    r.daemon.wait_line("lost to another worker")
    r.sim.wait(requests=2, patience=8)
    r.sim.control("DELETE", "rules")
    r.sim.release()
    assert r.wait_job(id)["status"] == "completed"


def test_dispatched_children_keep_their_pipelines_promises(new_rig):
    """Deadline and follow-up are the pipeline's, whoever submits the job.
    Fails with: core/work/work_child.c, work_submit: without `after` and the pipeline's deadline."""
    child = {**NAP, "deadline": "1h", "on_complete": [
        {"name": "told", "mode": "dispatch", "pipeline": "follow", "input": {"n": "{{ .input.n }}"}, "id": "follow:{{ .input.n }}"}]}
    dispatch = {"stages": [{"name": "send", "plugin": "reward", "options": {"targets": [
        {"name": "child", "mode": "dispatch", "pipeline": "child", "input": {"n": "{{ .input.n }}"}}]}}],
        "result": "{{ .send.child }}"}
    r = new_rig(workers=1, pipelines={"parent": dispatch, "child": child, "follow": samples.ECHO})
    id = r.run("parent", {"n": "1"})["result"]
    id = id["id"] if isinstance(id, dict) else id
    assert r.redis.hget(f"mr:{{0}}:job:{id}", "ttl") == "3600000"
    assert r.wait_job(id)["status"] == "completed"
    r.until(lambda: [k for k in keys(r, "mr:{0}:job:*") if r.redis.hget(k, "pipeline") == "follow"], patience=10)


def test_what_is_due_is_not_held_up_by_one_that_cannot_be_woken(new_rig):
    """A member of `due` whose job is broken is logged and passed over.
    Fails with: core/state/mover.c, mover_turn: stops at the first error."""
    r = new_rig(workers=1, pipelines={"say": samples.ECHO})
    broken = "00000000-0000-5000-8000-000000000000"
    r.redis.set(f"mr:{{0}}:job:{broken}", "no hash")
    r.redis.zadd("mr:{0}:due", {f"l {broken} 1": 1})
    id = r.submit("say", {"n": 1}, delay="100ms")["id"]
    assert r.wait_job(id, patience=10)["status"] == "completed"


def test_deltas_right_before_the_end_of_a_stage(new_rig):
    """A reader has the text of a stage whole before its end.
    Fails with: core/work/work_ops.c, work_commit: without work_tell_flush."""
    tell = {"stages": [samples.model("before", "before"),
                       {"name": "tell", "plugin": "misbehave", "options": {"how": "tell"}}]}
    r = new_rig(workers=1, pipelines={"tell": tell}, config=MISBEHAVE)
    r.sim.rule({"hold": True})
    id = r.submit("tell", {"n": 1})["id"]
    r.sim.wait(held=1)
    with r.stream(f"/api/v1/jobs/{id}/events") as stream:
        events = iter(stream)
        assert next(events).kind == "job.queued"
        r.sim.release()
        kinds = [(e.kind, e.data.get("stage")) for e in stream.until("job.completed")]
    at = kinds.index(("stage.completed", "tell"))
    assert kinds[at - 3:at] == [("stage.delta", "tell")] * 3, kinds


def test_stop_while_redis_is_away(new_rig):
    """Commits that wait for Redis do not keep a stopping worker: it ends by itself, not by the master's KILL.
    Fails with: core/work/worker.c, worker_drain: without redis_hurry."""
    r = new_rig(workers=1, pipelines={"ask": samples.ask(timeout="1h")}, config={"drain": "1s"})
    r.sim.rule({"hold": True})
    for i in range(3):
        r.submit("ask", {"say": str(i)})
    r.sim.wait(held=3)
    r.kill_redis()
    r.sim.release()
    assert r.stop_daemon() == 0
    r.daemon.wait_line('child=.worker 1. how="ended with status 0"')


def test_tombstone_of_a_child_that_is_not_there(new_rig):
    """A parent is cancelled while Redis has forgotten the child it waits for: whoever submits it late finds it
    cancelled, for as long as the call could have lasted and two leases more.
    Fails with: core/work/work_child.c, work_cancel_children: without the call's timeout."""
    r = new_rig(workers=1, pipelines={"parent": parent(timeout="25s"), "child": samples.NAP, "say": samples.ECHO},
                config={"lease": "2s"})
    id = r.submit("parent", {"n": "p"})["id"]
    noted = r.until(lambda: r.redis.hget(f"mr:{{0}}:job:{id}", "calls:ask"))
    child = noted.split()[0]
    r.until(lambda: r.redis.pubsub_numsub(f"mr:{{0}}:watch:{child}")[0][1] == 1)
    r.run("say", {"n": 1})  # by its end the parent has read the child once, and waits for its events
    r.redis.delete(*(f"mr:{{0}}:{kind}:{child}" for kind in ("job", "out", "log")))
    assert r.post(f"/api/v1/jobs/{id}/cancel").status == 202
    assert r.wait_job(id)["status"] == "cancelled"
    left = r.redis.pttl(f"mr:{{0}}:job:{child}")
    assert 20000 < left <= 29000, left
