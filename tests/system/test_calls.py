"""Calls and dispatches between pipelines: results, timeouts, failures, ids, and that they happen once."""

import samples

CALL = {"name": "down", "mode": "call", "pipeline": "child", "timeout": "20s", "input": {"say": "{{ .input.say }}"}}


def reward(**target):
    return {"stages": [{"name": "up", "plugin": "reward", "retry": {"attempts": 2, "backoff": "50ms", "max_backoff": "50ms"},
                        "options": {"targets": [{**CALL, **target}]}}], "result": "{{ .up }}"}


RIG = {
    "workers": 2,
    "pipelines": {
        "child": samples.ask(retry={"attempts": 1}),
        "plain": reward(),
        "hasty": reward(timeout="300ms", on_timeout={"late": True}),
        "hasty-hard": {"stages": [{"name": "up", "plugin": "reward", "retry": {"attempts": 1},
                                   "options": {"targets": [{**CALL, "timeout": "300ms"}]}}]},
        "lenient": reward(on_failure={"gone": True}),
        "two": {"stages": [{"name": "up", "plugin": "reward", "options": {"targets": [
            {**CALL, "name": "a", "parallel": True, "input": {"say": "a of {{ .input.say }}"}},
            {**CALL, "name": "b", "parallel": True, "input": {"say": "b of {{ .input.say }}"}}]}}], "result": "{{ .up }}"},
        "fire": {"stages": [{"name": "up", "plugin": "reward", "options": {"targets": [
            {"name": "off", "mode": "dispatch", "pipeline": "child", "input": {"say": "{{ .input.say }}"}}]}}], "result": "{{ .up }}"},
        "deep3": samples.ECHO,
        "deep2": {"stages": [{"name": "up", "plugin": "reward", "options": {"targets": [{**CALL, "pipeline": "deep3"}]}}],
                  "result": "{{ .up }}"},
        "deep1": {"stages": [{"name": "up", "plugin": "reward", "options": {"targets": [{**CALL, "pipeline": "deep2"}]}}],
                  "result": "{{ .up }}"},
    },
}


def test_call_gives_the_result(rig, sim):
    job = rig.run("plain", {"say": "hello child"})
    assert job["status"] == "completed" and job["result"] == {"down": "Simulated answer to: hello child"}, job


def test_calls_within_calls(rig):
    job = rig.run("deep1", {"say": "deep"})
    assert job["result"] == {"down": {"down": {"say": "deep"}}}, job


def test_parallel_calls_run_side_by_side(rig, sim):
    sim.rule({"hold": True}, {"contains": "side by side"})
    id = rig.submit("two", {"say": "side by side"})["id"]
    sim.wait(held=2)
    sim.release()
    job = rig.wait_job(id)
    assert job["result"] == {"a": "Simulated answer to: a of side by side", "b": "Simulated answer to: b of side by side"}, job


def test_timeout_goes_on_and_leaves_the_child(rig, sim):
    sim.rule({"hold": True}, {"contains": "too slow"})
    job = rig.run("hasty", {"say": "too slow"})
    assert job["status"] == "completed" and job["result"] == {"down": {"late": True}}, job
    sim.release()


def test_timeout_without_a_way_on_fails(rig, sim):
    sim.rule({"hold": True}, {"contains": "slow and hard"})
    job = rig.run("hasty-hard", {"say": "slow and hard"})
    assert job["status"] == "failed" and job["error"]["code"] == "call_timeout", job
    sim.release()


def test_failed_child_fails_the_call(rig, sim):
    sim.rule({"status": 400, "message": "child says no"}, {"contains": "bad child"})
    job = rig.run("plain", {"say": "bad child"})
    assert job["status"] == "failed" and job["error"]["code"] == "call_failed", job
    assert rig.run("lenient", {"say": "bad child"})["result"] == {"down": {"gone": True}}


def test_dispatch_gives_the_id_and_goes_on(rig, sim):
    sim.rule({"hold": True}, {"contains": "fire and forget"})
    job = rig.run("fire", {"say": "fire and forget"})
    assert job["status"] == "completed", job
    child = job["result"]["off"]
    sim.wait(held=1)
    assert rig.job(child)["status"] in ("queued", "processing")
    sim.release()
    assert rig.wait_job(child)["result"] == "Simulated answer to: fire and forget"


def test_many_waiting_parents_do_not_starve_their_children(new_rig):
    """Twenty parents with a concurrency of four in one process: waiting in a call gives the slot back."""
    r = new_rig(workers=1, pipelines={"child": samples.ECHO, "plain": reward()}, config={"concurrency": 4})
    ids = [r.submit("plain", {"say": f"parent {n}"})["id"] for n in range(20)]
    for id in ids:
        assert r.wait_job(id)["status"] == "completed"
