"""Cancelling a job in every state it can be in, from any process; what it called goes with it, and nothing that was told
"cancelling" ever completes."""

import random
import signal
import threading

import rig as rigs
import samples
from hosts import Host

PLUGINS = [str(rigs.BUILD / "plugins"), str(rigs.BUILD / "tests" / "plugins")]


def target(mode, pipeline, name="down", **more):
    if mode == "call":
        more = {"timeout": "60s", **more}
    return {"name": name, "mode": mode, "pipeline": pipeline, "input": {"say": "{{ .input.say }}"}, **more}


def reward(*targets, **stage):
    return {"stages": [{"name": "up", "plugin": "reward", **stage, "options": {"targets": list(targets)}}]}


PIPELINES = {
    "ask": samples.ask(timeout="1h"), "nap": samples.NAP, "echo": samples.ECHO,
    "stubborn": samples.ask(retry={"attempts": 9, "backoff": "1h", "max_backoff": "1h"}),
    "elsewhere": {"stages": [{"name": "say", "plugin": "echo", "queue": "elsewhere"}]},
    "paused": samples.ECHO,
    "busy": {"stages": [{"name": "busy", "plugin": "misbehave", "timeout": "1h", "options": {"how": "busy", "for": "1s"}},
                        samples.model("after", "after busy")]},
    # A call of a call of a model call; and beside the last one a dispatch, and a call of a child with a name of its own.
    "grand": reward(target("call", "middle")),
    "middle": reward(target("dispatch", "ask", "off", input={"say": "dispatched {{ .input.say }}"}),
                     target("call", "ask", "named", parallel=True, id="named:{{ .input.say }}",
                            input={"say": "named {{ .input.say }}"}),
                     target("call", "ask", "plain", parallel=True, input={"say": "plain {{ .input.say }}"})),
}


def cancel(r, id):
    return r.http("POST", f"/api/v1/jobs/{id}/cancel")


def child_of(r, pipeline, say):
    """The job of that pipeline whose input holds the text."""
    for key in r.redis.scan_iter("mr:{0}:job:*", count=1000):
        if r.redis.hget(key, "pipeline") == pipeline and say in (r.redis.hget(key, "input") or ""):
            return key.rpartition(":")[2]
    return None


def assert_cancelled(r, id):
    job = r.wait_job(id)
    assert job["status"] == "cancelled", job
    kinds = [e["event"] for e in r.events(id).json["data"]]
    assert kinds[-1] == "job.cancelled" and kinds.count("job.cancelled") == 1, kinds
    assert "job.completed" not in kinds and "job.failed" not in kinds, kinds
    fields = r.redis.hgetall(f"mr:{{0}}:job:{id}")
    assert not fields["lanes"] and not [f for f in fields if f.startswith("l:")], fields
    assert not [m for m in r.redis.zrange("mr:{0}:due", 0, -1) if id in m]
    again = cancel(r, id)
    assert again.status == 200 and again.json["status"] == "cancelled", again
    return job


# ---- Jobs that no worker has ----


def test_jobs_that_wait(new_rig):
    """Queued, delayed, held by a pause, between two attempts, sent away by a rate limit: 200, cancelled at once.
    Fails with: core/state/lib/closing.lua, closing_read: `if l.state == 'r' or l.state == 'd' then`"""
    r = new_rig(pipelines=PIPELINES, config={"plugins": PLUGINS, "queues": ["default"]})
    r.sim.rule({"status": 500}, {"contains": "broken"})
    r.sim.rule({"status": 429, "headers": {"Retry-After": "100"}}, {"contains": "away"})
    r.redis.hset("mr:{0}:paused", "paused", 1)
    ids = {"queued": r.submit("elsewhere", {"n": 1})["id"], "delayed": r.submit("echo", {"n": 1}, delay="1h")["id"],
           "held": r.submit("paused", {"n": 1})["id"], "between attempts": r.submit("stubborn", {"say": "broken"})["id"],
           "sent away": r.submit("ask", {"say": "away"})["id"]}
    for name in ("held", "between attempts", "sent away"):
        state = "h" if name == "held" else "d"
        r.until(lambda: any(v.startswith(state + " ") for f, v in
                            r.redis.hgetall(f"mr:{{0}}:job:{ids[name]}").items() if f.startswith("l:")))
    for name, id in ids.items():
        reply = cancel(r, id)
        assert reply.status == 200 and reply.json["status"] == "cancelled", (name, reply)
        assert_cancelled(r, id)
    assert r.redis.xlen("mr:{0}:queue:elsewhere:normal") == 0 and r.redis.zcard("mr:{0}:held:paused") == 0


# ---- Jobs that run ----


def test_jobs_that_run(new_rig):
    """In a model call: the connection is closed at once. Asleep: it wakes. On a thread: it ends when the thread gives it
    back, and the next stage does not begin.
    Fails with: core/work/worker.c, worker_on_bell: no work_lane_stop() (the next renewal, 20 s later, would say it)."""
    r = new_rig(pipelines=PIPELINES, config={"plugins": PLUGINS, "lease": "60s"})
    r.sim.rule({"hold": True})
    ids = {"call": r.submit("ask", {"say": "held"})["id"], "asleep": r.submit("nap", {"n": 1})["id"],
           "thread": r.submit("busy", {"n": 1})["id"]}
    r.sim.wait(held=1)
    for id in ids.values():
        r.wait_job(id, until=("processing",))
    for name, id in ids.items():
        reply = cancel(r, id)
        assert reply.status == 202, (name, reply)
        assert reply.json.get("cancel_requested") or reply.json["status"] == "cancelled", reply
    r.sim.wait(client_closed=1, patience=15)
    for id in ids.values():
        assert_cancelled(r, id)
    assert r.sim.stats()["requests"] == 1


def test_a_stage_that_does_not_hear(new_rig):
    """A plugin that goes on after it was told to end, and succeeds: its output is kept, the job ends cancelled.
    Fails with: core/state/commit.lua: `local stop, done, more = nil,`"""
    deaf = {"stages": [{"name": "deaf", "plugin": "misbehave", "options": {"how": "deaf", "for": "100ms"}}]}
    r = new_rig(pipelines={**PIPELINES, "deaf": deaf, "hold": {"stages": [
        {"name": "hold", "plugin": "misbehave", "options": {"how": "hold", "for": "1s"}}]}}, config={"plugins": PLUGINS})
    id = r.submit("hold", {"n": 1})["id"]
    r.wait_job(id, until=("processing",))
    assert cancel(r, id).status == 202
    job = assert_cancelled(r, id)
    assert job["result"] is None, job
    id = r.submit("deaf", {"n": 1})["id"]
    r.wait_job(id, until=("processing",))
    assert cancel(r, id).status == 202
    assert_cancelled(r, id)


def test_children_and_grandchildren(new_rig):
    """A cancel goes down through calls, to whatever depth; what was dispatched, and a called child with a name of its own
    (others may wait for it too), live on.
    Fails with: core/work/work_lane.c, work_lane_give_up: no work_cancel_children()."""
    r = new_rig(workers=2, pipelines=PIPELINES, config={"plugins": PLUGINS, "lease": "60s"})
    r.sim.rule({"hold": True})
    id = r.submit("grand", {"say": "down"})["id"]
    r.sim.wait(held=3)
    middle = child_of(r, "middle", "down")
    plain, named, off = (child_of(r, "ask", f"{word} down") for word in ("plain", "named", "dispatched"))
    assert middle and plain and named and off
    assert cancel(r, id).status == 202
    for each in (id, middle, plain):
        assert_cancelled(r, each)
    r.sim.wait(client_closed=1)
    r.sim.release()
    for each in (named, off):
        job = r.wait_job(each)
        assert job["status"] == "completed", job
    assert r.sim.stats()["client_closed"] == 1


def test_a_parent_whose_worker_is_dead(new_rig):
    """A parent waits in a call when its host is killed; it is cancelled while nobody has it. Whoever takes the lane over
    cancels the child, which ran on another host all the time.
    Fails with: core/state/begin.lua: `if false then` for `if verdict == 'STOP' then`."""
    r = new_rig(pipelines={**PIPELINES, "parent": reward(target("call", "child"), queue="up"),
                           "child": samples.ask(queue="down", timeout="1h")},
                config={"plugins": PLUGINS, "lease": "3s", "queues": ["down"]}, start=False)
    r.sim.rule({"hold": True})
    r.start_daemon()
    r.start_lighttpd()
    r.until_ready()
    with Host(r, "parents", config={"queues": ["up"]}) as host:
        id = r.submit("parent", {"say": "left alone"})["id"]
        r.sim.wait(held=1)
        host.kill_all()
    reply = cancel(r, id)
    assert reply.status == 202 and reply.json["cancel_requested"] is True, reply
    assert r.job(id)["status"] == "processing"
    with Host(r, "heirs", config={"queues": ["up"]}):
        assert_cancelled(r, id)
        assert_cancelled(r, child_of(r, "child", "left alone"))
        r.sim.wait(client_closed=1)


# ---- From where, and when ----


def test_from_any_process(new_rig):
    """The front of another host, the command line, and a front whose worker is elsewhere: all the same.
    Fails with: core/state/lib/closing.lua, closing_write: no PUBLISH to the bell."""
    r = new_rig(pipelines=PIPELINES, config={"plugins": PLUGINS, "lease": "60s"})
    r.sim.rule({"hold": True})
    with Host(r, "other", config={"queues": ["elsewhere"]}) as other:
        one = r.submit("ask", {"say": "one"})["id"]
        two = r.submit("ask", {"say": "two"})["id"]
        r.sim.wait(held=2)
        assert cancel(other, one).status == 202
        r.sim.wait(client_closed=1)
        out = r.cli("cancel", two)
        assert "cancel" in out, out
        r.sim.wait(client_closed=2)
        assert_cancelled(r, one)
        assert_cancelled(other, two)
        code, out, err = r.cli("cancel", two, status=None)
        assert code == 0, (code, out, err)
        done = r.run("echo", {"n": 1})["id"]
        assert cancel(other, done).status == 409
        code, out, err = r.cli("cancel", done, status=None)
        assert code == 1, (code, out, err)


def test_during_a_drain(new_rig):
    """TERM, and then a cancel by another host of a job that the draining worker still waits for: its call is closed now,
    and it ends cancelled, not handed back.
    Fails with: core/work/worker.c, worker_on_bell: `if (lane && !worker->draining)`"""
    r = new_rig(pipelines=PIPELINES, config={"plugins": PLUGINS, "lease": "60s", "queues": ["elsewhere"]})
    r.sim.rule({"hold": True})
    with Host(r, "draining", config={"drain": "60s", "queues": ["default"]}) as host:
        id = host.submit("ask", {"say": "drained"})["id"]
        other = host.submit("ask", {"say": "kept"})["id"]
        r.sim.wait(held=2)
        host.daemon.send(signal.SIGTERM)
        host.daemon.wait_line("draining: 2 lanes")
        assert cancel(r, id).status == 202
        r.sim.wait(client_closed=1)
        assert_cancelled(r, id)
        assert host.daemon.is_alive()
        r.sim.release()
        assert host.daemon.wait() == 0
        assert r.wait_job(other)["status"] == "completed"
    assert r.sim.stats()["requests"] == 2


def test_while_its_worker_is_dead(new_rig):
    """The worker's host is gone and its lease runs on: 202 now, cancelled when the lease is over; it is not run again.
    Fails with: core/state/begin.lua: `local winding = false`"""
    r = new_rig(pipelines=PIPELINES, config={"plugins": PLUGINS, "lease": "3s"}, start=False)
    r.sim.rule({"hold": True})
    with Host(r, "lost") as host:
        id = host.submit("ask", {"say": "orphan"})["id"]
        r.sim.wait(held=1)
        r.start_daemon()
        r.start_lighttpd()
        r.until_ready()
        host.kill_all()
    reply = cancel(r, id)
    assert reply.status == 202 and reply.json["cancel_requested"] is True, reply
    assert_cancelled(r, id)
    assert r.sim.stats()["requests"] == 1


# ---- The race ----


def test_cancelled_around_the_end(new_rig):
    """Hundreds of jobs of three stages are cancelled at random moments before, at and after their end: whatever was
    answered with 200 or 202 ends cancelled, whatever was answered with 409 had completed.
    Fails with: core/state/commit.lua: `local stop, done, more = nil,`: some that were told "cancelling" complete."""
    chain = {"stages": [samples.model(f"s{i}", f"{i} of {{{{ .input.n }}}}") for i in range(3)], "result": "done"}
    r = new_rig(workers=2, pipelines={"chain": chain}, sim=("--latency", "0ms..30ms"))
    seed = random.SystemRandom().randrange(2**32)
    dice = random.Random(seed)
    answers, failures = {}, []

    def client(number):
        mine = random.Random(seed + number)
        try:
            for i in range(60):
                id = r.submit("chain", {"n": f"{number}/{i}"})["id"]
                # Somewhere in its life: after so many of its events.
                until = mine.randrange(0, 8)
                with r.stream(f"/api/v1/jobs/{id}/events") as stream:
                    for event in stream:
                        if event.number and event.number >= until:
                            break
                    answers[id] = cancel(r, id)
        except Exception as error:  # told by the test, with the seed
            failures.append(repr(error))

    threads = [threading.Thread(target=client, args=(dice.randrange(2**30),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, (seed, failures)
    counts = {200: 0, 202: 0, 409: 0}
    for id, reply in answers.items():
        counts[reply.status] += 1
        job = r.wait_job(id)
        kinds = [e["event"] for e in r.events(id).json["data"]]
        wanted = "completed" if reply.status == 409 else "cancelled"
        assert job["status"] == wanted and kinds[-1] == f"job.{wanted}", (seed, reply, job, kinds)
        assert sum(kind in ("job.completed", "job.cancelled", "job.failed") for kind in kinds) == 1, (seed, kinds)
    assert len(answers) == 360 and counts[202] + counts[200] > 50 and counts[409] > 5, (seed, counts)
    assert not [k for k in r.redis.scan_iter("mr:*:queue:*") if r.redis.xlen(k)], "an entry is left"
