"""Pipelines over HTTP and on the command line: what there is, how their queues stand, pause and resume."""

import json

import pytest

import samples
from test_jobs import problem

RIG = {
    "workers": 2,
    "config": {"dead": {"schedule": []}},
    "pipelines": {
        "ask": samples.ask(), "other": samples.ask(), "two": samples.CHAIN_TWO_QUEUES,
        "rich": {
            "description": "everything that a description has", "deadline": "5m",
            "input": {"required": ["name"], "properties": {"name": {"type": "string"}}},
            "stages": [
                {"name": "a", "plugin": "echo"},
                {"name": "b", "plugin": "transform", "queue": "slow", "timeout": "90s", "needs": [], "options": {"output": {}},
                 "retry": {"attempts": 7}},
                {"name": "c", "plugin": "echo", "needs": ["a", "b"]},
            ],
        },
    },
}


@pytest.fixture()
def free(rig, sim):
    """The rig, with nothing paused."""
    for name in ("ask", "other", "two"):
        state(rig, name, "resume")
        settled(rig, name)
    return rig


def state(r, name, verb, status=200):
    reply = r.post(f"/api/v1/pipelines/{name}/{verb}", "")
    assert reply.status == status, reply
    return reply.json


def pipeline(r, name):
    reply = r.get(f"/api/v1/pipelines/{name}")
    assert reply.status == 200, reply
    return reply.json


def settled(r, name):
    """Awaits the end of a resumption."""
    return r.until(lambda: pipeline(r, name)["paused"] is False and pipeline(r, name))


def held(r, name, count):
    return r.until(lambda: pipeline(r, name)["held"] == count and pipeline(r, name))


def test_what_a_pipeline_is(free):
    """Fails with: core/app/check.c, check_all: versions are empty."""
    found = pipeline(free, "rich")
    version = json.loads(free.cli("plugins", "echo", "--json"))["version"]
    queues = found.pop("queues")
    assert set(queues) == {"default", "slow"}
    for figures in queues.values():
        assert set(figures) == {"waiting", "running", "oldest_ms"}
    revision = found.pop("revision")
    assert len(revision) == 64 and free.redis.exists(f"mr:{{rev:{revision}}}")
    transform = json.loads(free.cli("plugins", "transform", "--json"))["version"]
    assert found == {
        "object": "pipeline", "name": "rich", "description": "everything that a description has", "paused": False, "held": 0,
        "deadline": "5m", "input": {"required": ["name"], "properties": {"name": {"type": "string"}}},
        "stages": [
            {"name": "a", "plugin": "echo", "version": version, "queue": "default", "needs": [], "timeout": found["stages"][0]["timeout"],
             "attempts": found["stages"][0]["attempts"]},
            {"name": "b", "plugin": "transform", "version": transform, "queue": "slow", "needs": [], "timeout": "90s", "attempts": 7},
            {"name": "c", "plugin": "echo", "version": version, "queue": "default", "needs": ["a", "b"],
             "timeout": found["stages"][2]["timeout"], "attempts": found["stages"][2]["attempts"]},
        ]}
    assert pipeline(free, "ask")["input"] is None and pipeline(free, "ask")["description"] is None
    listed = free.get("/api/v1/pipelines").json
    assert listed["object"] == "list" and sorted(p["name"] for p in listed["data"]) == ["ask", "other", "rich", "two"]
    assert [p for p in listed["data"] if p["name"] == "rich"][0]["stages"] == found["stages"]


def test_figures_of_queues(free):
    """Fails with: fcgi/api_pipelines.c, stats_object: only class normal counts."""
    free.sim.rule({"hold": True})
    jobs = [free.submit("ask", {"say": f"figures {n}"}, priority=priority)["id"] for n, priority in enumerate(("low", "normal", "high"))]
    free.sim.wait(held=3)
    figures = pipeline(free, "ask")["queues"]["default"]
    assert figures["running"] == 3 and figures["waiting"] == 0, figures
    assert 0 < free.until(lambda: pipeline(free, "ask")["queues"]["default"]["oldest_ms"]) < 60000
    assert json.loads(free.cli("queues", "--json"))["queues"]["default"]["running"] == 3
    free.sim.release()
    for id in jobs:
        assert free.wait_job(id)["status"] == "completed"
    assert free.until(lambda: pipeline(free, "ask")["queues"]["default"] == {"waiting": 0, "running": 0, "oldest_ms": 0})


def test_unknown_pipelines(rig):
    """Fails with: fcgi/api_pipelines.c, change: an unknown name is the first pipeline."""
    for method, path in (("GET", ""), ("POST", "/pause"), ("POST", "/resume")):
        problem(rig.http(method, "/api/v1/pipelines/nothing" + path, "" if method == "POST" else None), 404, "not-found")
    reply = rig.get("/api/v1/pipelines/ask/pause")
    problem(reply, 405, "method-not-allowed")
    assert reply.header("Allow") == "POST"
    assert rig.redis.hgetall("mr:{0}:paused") == {}


def test_a_paused_pipeline_takes_jobs_and_begins_none(free):
    """Every process holds its jobs back; other pipelines of the same queue go on; resume wakes all.
    Fails with: core/state/begin.lua: paused is not looked at."""
    assert state(free, "ask", "pause")["paused"] is True
    jobs = []
    for n in range(6):
        reply = free.post("/api/v1/jobs", {"pipeline": "ask", "input": {"say": f"paused {n}"}})
        assert reply.status == 202 and reply.json["status"] in ("queued", "waiting"), reply
        jobs.append(reply.json["id"])
    assert held(free, "ask", 6)["paused"] is True
    assert {free.job(id)["status"] for id in jobs} == {"waiting"}
    assert free.run("other", {"say": "beside"})["status"] == "completed"
    assert [e["text"] for e in free.sim.journal()] == ["beside"]
    assert state(free, "ask", "pause")["held"] == 6  # again: nothing changes
    assert pipeline(free, "other")["paused"] is False
    answer = state(free, "ask", "resume")
    assert answer["paused"] in (False, "resuming")
    for id in jobs:
        assert free.wait_job(id)["status"] == "completed"
    assert settled(free, "ask")["held"] == 0
    assert len(free.sim.journal()) == 7
    assert free.redis.hgetall("mr:{0}:paused") == {}


def test_what_runs_goes_on(free):
    """The stage that runs ends, and so does its lane; the next lane waits.
    Fails with: core/state/begin.lua: paused is not looked at."""
    free.sim.rule({"hold": True}, {"contains": "first of"})
    id = free.submit("two", {"n": "goes on"})["id"]
    free.sim.wait(held=1)
    state(free, "two", "pause")
    free.sim.release()
    held(free, "two", 1)
    job = free.job(id)
    assert job["status"] == "waiting" and job["stages"]["first"]["status"] == "completed", job
    assert job["stages"]["middle"]["status"] == "waiting"
    state(free, "two", "resume")
    assert free.wait_job(id)["status"] == "completed"
    assert len(free.sim.journal()) == 2


def test_a_retry_comes_due_while_paused(free):
    """Fails with: core/state/wake.lua, kind l: held lanes of a resumed pipeline are gone."""
    free.sim.rule({"status": 503}, {"contains": "due"}, times=1)
    free.sim.rule({"hold": True}, {"contains": "never"})
    state(free, "other", "pause")
    state(free, "other", "resume")
    id = free.submit("other", {"say": "due"})["id"]
    free.sim.wait(requests=1)
    state(free, "other", "pause")
    free.until(lambda: pipeline(free, "other")["held"] == 1 or free.job(id)["status"] == "completed")
    state(free, "other", "resume")
    assert free.wait_job(id)["status"] == "completed"


def test_held_jobs_can_be_cancelled_and_erased(free):
    """Fails with: core/state/lib/closing.lua, closing_write: a held member is not removed."""
    state(free, "ask", "pause")
    jobs = [free.submit("ask", {"say": f"leave {n}"})["id"] for n in range(3)]
    held(free, "ask", 3)
    reply = free.post(f"/api/v1/jobs/{jobs[0]}/cancel", "")
    assert reply.status == 200 and reply.json["status"] == "cancelled", reply
    assert free.http("DELETE", f"/api/v1/jobs/{jobs[1]}").status == 204
    assert held(free, "ask", 1)["held"] == 1
    # One that has ended may be run again, and is held too.
    assert free.post(f"/api/v1/jobs/{jobs[0]}/retry", {}).status == 202
    held(free, "ask", 2)
    state(free, "ask", "resume")
    for id in (jobs[0], jobs[2]):
        assert free.wait_job(id)["status"] == "completed"
    assert [e["text"] for e in free.sim.journal()].count("leave 1") == 0


def test_a_pause_outlives_the_processes(new_rig):
    """It is in Redis: a daemon that starts later keeps to it, and a resume wakes what another one held, more than a hundred
    at a time.
    Fails with: core/state/resumed.lua: no test of ZCARD."""
    r = new_rig(workers=2, pipelines={"echo": samples.ECHO})
    state(r, "echo", "pause")
    jobs = [r.submit("echo", {"n": n})["id"] for n in range(250)]
    held(r, "echo", 250)
    r.stop_daemon()
    r.start_daemon()
    r.until_ready()
    assert pipeline(r, "echo")["paused"] is True
    late = r.submit("echo", {"n": "late"})["id"]
    held(r, "echo", 251)
    assert state(r, "echo", "resume")["paused"] == "resuming"
    for id in (*jobs, late):
        assert r.wait_job(id)["status"] == "completed"
    settled(r, "echo")


def test_cli(free):
    """Fails with: core/app/cli_queues.c, pause_run: resume is false."""
    assert free.cli("pause", "ask") == "ask  paused\n"
    id = free.submit("ask", {"say": "shell"})["id"]
    held(free, "ask", 1)
    shown = json.loads(free.cli("queues", "--json"))
    assert shown["paused"] == {"ask": {"state": "paused", "held": 1}}
    assert shown["dead"] == 0 and set(shown["queues"]) == {"default", "models", "slow"}
    text = free.cli("queues")
    assert "pipeline ask is paused, 1 held" in text and "models" in text and "0 dead letters" in text
    assert json.loads(free.cli("pause", "ask", "--json")) == {"pipeline": "ask", "state": "paused", "held": 1}
    assert free.job(id)["status"] == "waiting"
    resumed = json.loads(free.cli("resume", "ask", "--json"))
    assert resumed["pipeline"] == "ask" and resumed["state"] in ("resuming", "running")
    assert free.wait_job(id)["status"] == "completed"
    settled(free, "ask")
    for verb in ("pause", "resume"):
        code, out, err = free.cli(verb, "akk", status=None)
        assert code == 1 and out == "" and 'did you mean "ask"' in err, err
        assert free.cli(verb, status=None)[0] == free.cli(verb, "No Name", status=None)[0] == 2
        assert "PIPELINE" in free.cli(verb, "--help")
    assert free.cli("queues", "x", status=None)[0] == 2
    assert free.redis.hgetall("mr:{0}:paused") == {}


def test_cli_resumes_what_is_no_longer_there(new_rig):
    """A pipeline whose file is gone may still be paused, with jobs that wait.
    Fails with: core/app/cli_queues.c, pause_online: only pipelines that are known here."""
    r = new_rig(workers=1, pipelines={"echo": samples.ECHO, "gone": samples.ECHO})
    r.cli("pause", "gone")
    id = r.submit("gone", {"n": 1})["id"]
    held(r, "gone", 1)
    (r.folder / "pipelines" / "gone.json").unlink()
    assert r.cli("resume", "gone").startswith("gone  ")
    assert r.wait_job(id)["status"] == "completed"
    assert r.until(lambda: r.redis.hgetall("mr:{0}:paused") == {})
