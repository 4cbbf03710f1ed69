"""The simple task API, exactly."""

import uuid

import rig as rigs
import samples

RIG = {"pipelines": {"prompt": {**samples.ask(), "tasks_input": {"say": "{{ .prompt }}"}}}}


def prompt_id(text):
    return rigs.job_id("prompt", {"say": text})


def done(rig, id):
    rig.wait_job(id)
    reply = rig.get(f"/api/tasks/{id}")
    assert reply.status == 200, reply
    return reply.json


def test_prompts_become_tasks_in_order(rig, sim):
    prompts = ["alpha", "beta", "gamma"]
    reply = rig.post("/api/tasks", {"prompts": prompts})
    assert reply.status == 200, reply
    assert reply.json == {"task_ids": [prompt_id(p) for p in prompts], "status": "queued"}
    for prompt, id in zip(prompts, reply.json["task_ids"]):
        task = done(rig, id)
        assert task == {"status": "completed", "result": f"Simulated answer to: {prompt}", "error": None, "progress": "100"}
    both = rig.get("/api/tasks?task_ids=" + ",".join(reply.json["task_ids"]))
    assert both.status == 200 and list(both.json) == reply.json["task_ids"]
    assert {t["status"] for t in both.json.values()} == {"completed"}


def test_equal_prompts_are_one_task(rig, sim):
    reply = rig.post("/api/tasks", {"prompts": ["twin", "twin"]})
    ids = reply.json["task_ids"]
    assert reply.status == 200 and len(ids) == 2 and ids[0] == ids[1]
    done(rig, ids[0])
    again = rig.post("/api/tasks", {"prompts": ["twin"]})
    assert again.status == 200 and again.json["task_ids"] == ids[:1]
    assert sim.stats()["requests"] == 1


def test_states(rig, sim):
    sim.rule({"hold": True}, {"contains": "held"})
    sim.rule({"status": 400, "message": "never"}, {"contains": "refused"})
    held, bad = rig.post("/api/tasks", {"prompts": ["held", "refused"]}).json["task_ids"]
    sim.wait(held=1)
    rig.wait_job(held, until=("processing",))
    task = rig.get(f"/api/tasks/{held}").json
    assert set(task) == {"status", "result", "error", "progress"}
    assert task["status"] == "processing" and task["result"] is None and task["error"] is None
    assert isinstance(task["progress"], str) and 0 <= int(task["progress"]) < 100
    failed = done(rig, bad)
    assert failed["status"] == "error" and failed["result"] is None and "never" in failed["error"], failed
    sim.release()
    assert done(rig, held)["status"] == "completed"


def test_unknown_ids(rig):
    a = str(uuid.uuid4())
    reply = rig.get(f"/api/tasks?task_ids={a},nonsense")
    assert reply.status == 200, reply
    assert reply.json == {a: {"status": "not_found"}, "nonsense": {"status": "not_found"}}
    assert rig.get(f"/api/tasks/{a}").status == 404


def test_errors(rig):
    assert rig.post("/api/tasks", {"prompts": []}).status == 400
    assert rig.post("/api/tasks", {"prompts": "x"}).status == 422
    assert rig.post("/api/tasks", {"prompts": [1]}).status == 422
    assert rig.post("/api/tasks", {}).status == 422
    assert rig.post("/api/tasks", "{", {"Content-Type": "application/json"}).status == 400
    assert rig.get("/api/tasks").status == 400
    assert rig.get("/api/tasks?task_ids=").status == 400
    assert rig.get("/api/tasks?task_ids=" + ",".join(str(uuid.uuid4()) for _ in range(101))).status == 400
    assert rig.get("/api/tasks?task_ids=" + ",".join(str(uuid.uuid4()) for _ in range(100))).status == 200
