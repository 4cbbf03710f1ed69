"""Redis forgets the last seconds of a job that goes on running, as in a failover: its keys are put back to how they stood."""

import ledger
import redis as redis_library
import samples


def remember(r, id):
    names = [f"mr:{{0}}:{kind}:{id}" for kind in ("job", "out", "log")]
    raw = redis_library.Redis(unix_socket_path=r.redis_socket)
    return raw, {name: raw.dump(name) for name in names}


def restore(raw, state):
    """The job's keys as they stood: what a failover does."""
    pipe = raw.pipeline(transaction=True)
    for name, dump in state.items():
        pipe.delete(name)
        if dump is not None:
            pipe.restore(name, 0, dump)
    pipe.execute()


def test_forgotten_checkpoints_are_stored_again(new_rig):
    """Redis forgets three checkpoints of a job that goes on running: a model's answer, a skipped stage and a row. The
    model is asked nothing twice and the row is written once.
    Fails with: core/work/work_ops.c, work_forgotten: `return NULL;` for `return stage;`"""
    skip = {"name": "skip", "plugin": "echo", "when": "false", "else": "none"}
    stages = ledger.BOOKS["stages"]
    r = new_rig(workers=1, pipelines={"books": {**ledger.BOOKS, "stages": [stages[0], skip, *stages[1:]]}})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "first of"})
    r.sim.rule({"hold": True}, {"contains": "second of"})
    jobs = ledger.submit(r, 1)
    (id,) = jobs.values()
    r.sim.wait(held=1)
    raw, state = remember(r, id)
    r.sim.release()
    r.sim.wait(requests=2, held=1)
    restore(raw, state)
    assert "first" not in r.redis.hgetall(f"mr:{{0}}:out:{id}")
    r.sim.release()
    ledger.assert_done(r, jobs)
    r.daemon.wait_line("forgotten a checkpoint: stored again .*stage=first")
    assert r.job(id)["stages"]["skip"]["status"] == "skipped"


def test_forgotten_side_by_side(new_rig):
    """The same with branches that run side by side, one of which fails an attempt meanwhile: that is counted.
    Fails with: core/work/work_ops.c, work_send_more: `false && current` for `fail && current`."""
    again = {"attempts": 3, "backoff": "50ms", "max_backoff": "50ms"}
    fork = {"stages": [samples.model("root", "root of {{ .input.n }}"),
                       samples.model("left", "left of {{ .input.n }}", needs=["root"], retry=again),
                       samples.model("right", "right of {{ .input.n }}", needs=["root"], retry=again),
                       {"name": "join", "plugin": "transform", "needs": ["left", "right"],
                        "options": {"output": {"left": "{{ .left.text }}", "right": "{{ .right.text }}"}}}],
            "result": "{{ .join }}"}
    r = new_rig(workers=1, pipelines={"fork": fork})
    for word, answer in (("root", {}), ("left", {"status": 500}), ("right", {})):
        r.sim.rule({"hold": True, **answer}, {"contains": f"{word} of"}, times=1)
    id = r.submit("fork", {"n": "1"})["id"]
    r.sim.wait(held=1)
    raw, state = remember(r, id)
    r.sim.release()
    r.sim.wait(requests=3, held=2)
    restore(raw, state)
    r.sim.release()
    job = r.wait_job(id)
    assert job["status"] == "completed", job
    counts = ledger.asked(r.sim)
    assert (counts["root of 1"], counts["left of 1"], counts["right of 1"]) == (1, 2, 1), counts
    assert job["stages"]["left"]["attempts"] == 2, job
    assert job["result"] == {side: f"Simulated answer to: {side} of 1" for side in ("left", "right")}, job


def test_forgotten_steps_are_stored_again(new_rig):
    """Redis forgets what a stage's first two calls came to: with the third they are stored again, and a worker that takes
    over makes none of the three anew.
    Fails with: core/work/work_ops.c, work_step_put: `&& false` behind `count < want`."""
    names = ("one", "two", "three", "four")
    reward = {"stages": [{"name": "pay", "plugin": "reward", "timeout": "60s", "options": {"targets": [
        {"name": name, "mode": "call", "pipeline": name, "timeout": "50s", "input": {"n": "{{ .input.n }}"}}
        for name in names]}}], "result": "{{ .pay }}"}
    child = {name: {"stages": [samples.model("ask", name + " of {{ .input.n }}")], "result": "{{ .ask.text }}"}
             for name in names}
    r = new_rig(workers=1, pipelines={"reward": reward, **child})
    r.sim.rule({"hold": True}, {"contains": "one of"}, times=1)
    r.sim.rule({"hold": True}, {"contains": "three of"}, times=1)
    r.sim.rule({"hold": True}, {"contains": "four of"}, times=1)
    id = r.submit("reward", {"n": "1"})["id"]
    r.sim.wait(held=1)
    raw, state = remember(r, id)
    r.sim.release()
    r.sim.wait(requests=3, held=1)
    restore(raw, state)
    r.sim.release()
    r.sim.wait(requests=4, held=1)
    assert sorted(r.redis.hget(f"mr:{{0}}:job:{id}", "steps:pay").split(",")) == sorted("target." + n for n in names[:3])
    r.sim.release()
    assert r.wait_job(id)["status"] == "completed"
