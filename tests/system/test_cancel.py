"""Cancelling: waiting, running, finished jobs; the model's connection is closed; nothing runs on."""

import samples

RIG = {
    "pipelines": {
        "echo": samples.ECHO, "ask": samples.ask(), "nap": samples.NAP, "chain": samples.CHAIN,
        "parent": {"stages": [{"name": "up", "plugin": "reward", "options": {"targets": [
            {"name": "down", "mode": "call", "pipeline": "ask", "timeout": "60s", "input": {"say": "child of {{ .input.n }}"}}]}}]},
    },
}


def cancel(rig, id):
    return rig.post(f"/api/v1/jobs/{id}/cancel")


def test_running_job_is_cancelled_and_its_call_is_closed(rig, sim):
    sim.rule({"hold": True}, {"contains": "stop me"})
    id = rig.submit("ask", {"say": "stop me"})["id"]
    sim.wait(held=1)
    reply = cancel(rig, id)
    assert reply.status == 202, reply
    assert reply.json["status"] == "cancelled" or reply.json["cancel_requested"] is True, reply
    job = rig.wait_job(id)
    assert job["status"] == "cancelled", job
    sim.wait(client_closed=1)
    events = [e["event"] for e in rig.events(id).json["data"]]
    assert events[-1] == "job.cancelled", events
    again = cancel(rig, id)
    assert again.status == 200 and again.json["status"] == "cancelled", again


def test_waiting_job_is_cancelled_at_once(rig):
    id = rig.submit("echo", {"later": True}, delay="1h")["id"]
    reply = cancel(rig, id)
    assert reply.status == 200 and reply.json["status"] == "cancelled", reply
    assert rig.job(id)["status"] == "cancelled"


def test_finished_job_is_409(rig):
    job = rig.run("echo", {"finished": 1})
    reply = cancel(rig, job["id"])
    assert reply.status == 409, reply
    assert reply.json["type"] == "urn:millrace:problem:job-already-finished"


def test_no_stage_begins_after_a_cancel(rig, sim):
    sim.rule({"hold": True}, {"contains": "first of halt"})
    id = rig.submit("chain", {"n": "halt"})["id"]
    sim.wait(held=1)
    assert cancel(rig, id).status == 202
    assert rig.wait_job(id)["status"] == "cancelled"
    sim.release()
    assert sim.stats()["requests"] == 1


def test_a_sleeping_stage_wakes_for_a_cancel(rig):
    id = rig.submit("nap", {"n": 1})["id"]
    rig.wait_job(id, until=("processing",))
    assert cancel(rig, id).status == 202
    assert rig.wait_job(id)["status"] == "cancelled"


def test_children_of_calls_are_cancelled_too(rig, sim):
    sim.rule({"hold": True}, {"contains": "child of"})
    id = rig.submit("parent", {"n": "cancel"})["id"]
    sim.wait(held=1)
    assert cancel(rig, id).status == 202
    assert rig.wait_job(id)["status"] == "cancelled"
    sim.wait(client_closed=1)
