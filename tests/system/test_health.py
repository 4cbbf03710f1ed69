"""healthz, readyz, version, and what each of them says while Redis is away; submissions meanwhile."""

import json
import uuid

import rig as rigs
import samples

RIG = {"pipelines": {"echo": samples.ECHO, "prompt": {**samples.ask(), "tasks_input": {"say": "{{ .prompt }}"}}}, "appendonly": "always"}


def test_healthz_readyz_version(rig):
    assert rig.get("/healthz").status == 200
    assert rig.get("/readyz").status == 200
    version = rig.get("/version")
    assert version.status == 200 and version.json["version"], version
    assert rig.http("HEAD", "/healthz").status == 200


def test_children_have_titles(rig):
    assert len(rig.children("front")) == 1
    assert len(rig.workers()) == 1
    with open(f"/proc/{rig.daemon.pid}/cmdline", "rb") as file:
        assert file.read().split(b"\0")[0] == b"millrace: master"


def test_redis_away_and_back(rig):
    before = rig.run("echo", {"before": 1})
    rig.kill_redis()
    assert rig.get("/healthz").status == 200
    reply = rig.until(lambda: (lambda r: r if r.status == 503 else None)(rig.get("/readyz")))
    assert "redis" in reply.body.decode().lower(), reply
    for reply in (rig.submit("echo", {"away": 1}, status=None), rig.get(f"/api/v1/jobs/{before['id']}"),
                  rig.get(f"/api/tasks/{before['id']}")):
        assert reply.status == 503, reply
        assert reply.header("Content-Type").startswith("application/problem+json"), reply
        assert reply.json["type"] == "urn:millrace:problem:store-unavailable", reply
        assert int(reply.header("Retry-After")) >= 1, reply
    a, b = str(uuid.uuid4()), before["id"]
    reply = rig.get(f"/api/tasks?task_ids={a},{b}")
    assert reply.status == 200, reply
    for id in (a, b):
        assert reply.json[id]["status"] == "error", reply
        assert reply.json[id]["error"] == "Failed to retrieve status from Redis", reply
    rig.start_redis()
    rig.until_ready()
    assert rig.job(before["id"])["status"] == "completed"
    assert rig.run("echo", {"after": 1})["status"] == "completed"


def test_readyz_lists_what_failed_as_json(new_rig):
    r = new_rig(start=False, pipelines={"echo": samples.ECHO})
    r.kill_redis()
    r.start_daemon()
    r.start_lighttpd()
    reply = r.http("GET", "/readyz")
    assert reply.status == 503, reply
    json.loads(reply.body)
    assert r.http("GET", "/healthz").status == 200
    r.start_redis()
    r.until_ready()
    assert r.daemon.is_alive() and rigs.children_of(r.daemon.pid)
