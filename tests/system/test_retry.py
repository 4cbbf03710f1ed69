"""One job by hand: run again, also from a stage; erased; found in the list of jobs."""

import json
import uuid

import pytest

import samples
from test_dead import ONCE, clean, dead, failed, ids, ms, retry, said  # noqa: F401
from test_dead import RIG as DEAD_RIG
from test_jobs import problem

BRANCHES = {
    "stages": [
        samples.model("start", "start of {{ .input.n }}", retry=ONCE),
        samples.model("left", "left of {{ .input.n }}", needs=["start"], retry=ONCE),
        samples.model("right", "right of {{ .input.n }}", needs=["start"], retry=ONCE),
        samples.model("join", "join of {{ .input.n }}: {{ .left.text }} {{ .right.text }}", needs=["left", "right"], retry=ONCE),
    ],
    "result": "{{ .join.text }}",
}
RIG = {**DEAD_RIG, "pipelines": {**DEAD_RIG["pipelines"], "branches": BRANCHES, "echo": samples.ECHO}}


# ---- again ----


def test_retry_goes_on_from_the_failed_stage(clean):
    """Outputs of finished stages are not paid for again.
    Fails with: core/state/lib/rerun.lua, rerun_read: done stages are opened too."""
    clean.sim.rule({"status": 400}, {"contains": "two of kept"})
    id = failed(clean, "gamma", "kept")["id"]
    first = clean.job(id)["stages"]["one"]
    clean.sim.reset()
    reply = retry(clean, id)
    assert reply.json["id"] == id and reply.json["status"] in ("queued", "processing", "completed")
    assert reply.header("Location") == f"/api/v1/jobs/{id}" and reply.header("ETag")
    job = clean.wait_job(id)
    assert job["status"] == "completed" and job["error"] is None and job["stages"]["one"] == first, job
    assert said(clean.sim) == ["two of kept"]
    assert id not in ids(dead(clean))
    kinds = [e["event"] for e in clean.events(id).json["data"]]
    assert kinds.count("job.queued") == 2 and kinds[-1] == "job.completed", kinds


def test_retry_from_a_stage(clean):
    """That stage and all after it run again, also what is done; a branch beside it keeps its output.
    Fails with: core/app/rerun.c, rerun_from: only `from` itself is reset."""
    clean.sim.rule({"status": 400}, {"contains": "join of from"})
    id = clean.run("branches", {"n": "from"})["id"]
    before = clean.job(id)
    assert before["status"] == "failed" and sorted(said(clean.sim))[0].startswith("join")
    clean.sim.reset()
    clean.sim.rule({"status": 400}, {"contains": "join of from"}, times=1)
    retry(clean, id, {"from": "left"})
    job = clean.wait_job(id)
    assert job["status"] == "failed" and job["error"]["stage"] == "join", job
    assert [text.split(" of ")[0] for text in said(clean.sim)] == ["left", "join"]
    assert job["stages"]["right"] == before["stages"]["right"] and job["stages"]["start"] == before["stages"]["start"]
    clean.sim.reset()
    retry(clean, id, {"from": "start"})
    assert clean.wait_job(id)["status"] == "completed"
    assert sorted(text.split(" of ")[0] for text in said(clean.sim)) == ["join", "left", "right", "start"]


def test_retry_of_a_cancelled_job(clean):
    """Fails with: core/state/again.lua: only failed ones run again."""
    clean.sim.rule({"hold": True}, {"contains": "two of stop"}, times=1)
    id = clean.submit("gamma", {"say": "stop"})["id"]
    clean.sim.wait(held=1)
    problem(clean.post(f"/api/v1/jobs/{id}/retry", {}), 409, "job-not-finished")
    assert clean.post(f"/api/v1/jobs/{id}/cancel").status in (200, 202)
    assert clean.wait_job(id)["status"] == "cancelled"
    clean.sim.reset()
    retry(clean, id)
    assert clean.wait_job(id)["status"] == "completed"
    assert said(clean.sim) == ["two of stop"]


def test_retry_refused(clean):
    """Fails with: core/app/rerun.c, rerun_send: no test of "completed"."""
    id = clean.run("echo", {"n": "done"})["id"]
    found = problem(clean.post(f"/api/v1/jobs/{id}/retry", {}), 409, "job-already-finished")
    assert "fresh" in found["detail"]
    problem(clean.post(f"/api/v1/jobs/{uuid.uuid4()}/retry", {}), 404, "not-found")
    problem(clean.post("/api/v1/jobs/x/retry", {}), 404, "not-found")
    clean.sim.rule({"status": 400}, {"contains": "of refused"})
    id = failed(clean, "gamma", "refused")["id"]
    for body, pointer, words in (({"from": "on"}, "/from", 'did you mean "one"'), ({"from": "two"}, "/from", "did not get as far"),
                                 ({"from": 1}, "/from", "string"), ({"form": "one"}, "/form", '"from"'), ([], "", "object")):
        found = problem(clean.post(f"/api/v1/jobs/{id}/retry", body), 422, "validation")
        assert [e["pointer"] for e in found["errors"]] == [pointer] and words in found["errors"][0]["detail"], found
    problem(clean.post(f"/api/v1/jobs/{id}/retry", "{", {"Content-Type": "application/json"}), 400, "bad-json")
    problem(clean.post(f"/api/v1/jobs/{id}/retry", "x", {"Content-Type": "text/plain"}), 415, "unsupported-media-type")
    reply = clean.get(f"/api/v1/jobs/{id}/retry")
    assert reply.status == 405 and reply.header("Allow") == "POST"
    assert clean.job(id)["status"] == "failed" and len(said(clean.sim)) == 1


def test_retry_sent_twice_runs_once(clean):
    """The same request id: an answer was lost, and the client asks again.
    Fails with: core/app/rerun.c, rerun_send: is_same is false."""
    clean.sim.rule({"status": 400}, {"contains": "of twice"}, times=1)
    id = failed(clean, "gamma", "twice")["id"]
    clean.sim.rule({"hold": True}, {"contains": "one of twice"})
    for _ in range(2):
        retry(clean, id, headers={"X-Request-Id": "by-hand-1"})
        clean.sim.wait(held=1)
    clean.sim.release()
    assert clean.wait_job(id)["status"] == "completed"
    retry(clean, id, headers={"X-Request-Id": "by-hand-1"})
    problem(clean.post(f"/api/v1/jobs/{id}/retry", {}, {"X-Request-Id": "by-hand-2"}), 409, "job-already-finished")
    assert len([text for text in said(clean.sim) if text == "one of twice"]) == 2


def test_retry_whose_outputs_have_expired(clean):
    """Fails with: core/app/rerun.c, rerun_again: an ended job is RERUN_OPEN."""
    clean.sim.rule({"status": 400}, {"contains": "two of gone"})
    id = failed(clean, "gamma", "gone")["id"]
    clean.redis.delete(f"mr:{{0}}:out:{id}")
    found = problem(clean.post(f"/api/v1/jobs/{id}/retry", {}), 410, "expired")
    assert "fresh" in found["detail"]
    assert clean.job(id)["status"] == "failed"


def test_retry_in_the_revision_that_the_job_has(new_rig):
    """The pipeline has changed since: its stages are those of the job's revision, from Redis.
    Fails with: core/app/rerun.c, rerun_send: `known` counts whatever its revision."""
    old = {"stages": [samples.model("one", "one", retry=ONCE), samples.model("two", "two", retry=ONCE)], "result": "{{ .two.text }}"}
    r = new_rig(workers=1, pipelines={"change": old}, config={"dead": {"schedule": []}})
    r.sim.rule({"status": 400}, {"contains": "two"})
    id = r.run("change", {"n": 1})["id"]
    r.stop_daemon()
    r.write_pipeline("change", {"stages": [samples.model("three", "three", retry=ONCE)], "result": "{{ .three.text }}"})
    r.start_daemon()
    r.until_ready()
    found = problem(r.post(f"/api/v1/jobs/{id}/retry", {"from": "three"}), 422, "validation")
    assert "no stage" in found["errors"][0]["detail"], found
    r.sim.reset()
    retry(r, id, {"from": "one"})
    assert r.wait_job(id)["status"] == "completed"
    assert said(r.sim) == ["one", "two"]
    # Nobody knows that revision any more.
    r.sim.rule({"status": 400}, {"contains": "three"})
    id = r.run("change", {"n": 2})["id"]
    r.redis.hset(f"mr:{{0}}:job:{id}", "rev", "0" * 64)
    found = problem(r.post(f"/api/v1/jobs/{id}/retry", {"from": "three"}), 422, "validation")
    assert "not known any more" in found["errors"][0]["detail"], found


# ---- erasing ----


def test_delete(clean):
    """Fails with: core/state/erase.lua: no BUSY."""
    id = clean.run("echo", {"n": "erase"})["id"]
    reply = clean.http("DELETE", f"/api/v1/jobs/{id}")
    assert reply.status == 204 and reply.body == b"", reply
    assert clean.redis.keys(f"*{id}*") == [] and id not in clean.redis_text()
    problem(clean.get(f"/api/v1/jobs/{id}"), 404, "not-found")
    problem(clean.http("DELETE", f"/api/v1/jobs/{id}"), 404, "not-found")
    # A dead letter leaves the list with it.
    clean.sim.rule({"status": 400}, {"contains": "erased"})
    id = failed(clean, "alpha", "erased")["id"]
    assert clean.http("DELETE", f"/api/v1/jobs/{id}").status == 204
    assert ids(dead(clean)) == []
    # Not while it runs; while it waits for its time, yes.
    clean.sim.rule({"hold": True}, {"contains": "held"})
    id = clean.submit("alpha", {"say": "held"})["id"]
    clean.sim.wait(held=1)
    problem(clean.http("DELETE", f"/api/v1/jobs/{id}"), 409, "job-not-finished")
    clean.sim.release()
    assert clean.wait_job(id)["status"] == "completed"
    id = clean.submit("echo", {"n": "later"}, delay="1h")["id"]
    assert clean.http("DELETE", f"/api/v1/jobs/{id}").status == 204
    assert id not in clean.redis_text()


def test_delete_ends_a_stream(clean):
    """Told by the channel, and found out after a silence: either alone is enough.
    Fails with: core/state/watch.c, watch_next: is_gone is not looked at."""
    id = clean.submit("echo", {"n": "watched"}, delay="1h")["id"]
    with clean.stream(f"/api/v1/jobs/{id}/events") as stream:
        events = iter(stream)
        assert next(events).kind == "job.queued"
        assert clean.http("DELETE", f"/api/v1/jobs/{id}").status == 204
        assert list(events) == []


# ---- the list of jobs ----


def test_jobs_newest_first(clean):
    """Fails with: fcgi/api_list.c, is_wanted: the status does not matter."""
    clean.sim.rule({"status": 400}, {"contains": "listed bad"})
    clean.run("echo", {"n": "older"})
    bad = failed(clean, "alpha", "listed bad")["id"]
    good = [clean.run("branches", {"n": f"listed {n}"})["id"] for n in range(3)]
    waiting = clean.submit("branches", {"n": "listed later"}, delay="1h")["id"]
    reply = clean.get("/api/v1/jobs?limit=5")
    page = reply.json
    assert reply.status == 200 and page["object"] == "list", reply
    assert ids(page) == [waiting, *good[::-1], bad]
    assert page["has_more"] is True and page["last_id"] == bad
    whole = clean.job(bad)
    entry = page["data"][-1]
    assert "result" not in entry and "stages" not in entry
    assert entry == {k: v for k, v in whole.items() if k in entry} and set(whole) - set(entry) == {"result", "stages"}
    for query, want in (("pipeline=branches", [waiting, *good[::-1]]), ("pipeline=branches&status=waiting", [waiting]),
                        (f"pipeline=branches&after={good[2]}", [good[1], good[0]]),
                        (f"pipeline=branches&status=completed&after={waiting}&limit=1", [good[2]])):
        assert [id for id in ids(clean.get(f"/api/v1/jobs?{query}").json) if id in (bad, waiting, *good)] == want, query
    assert bad in ids(clean.get("/api/v1/jobs?status=failed&pipeline=alpha").json)
    seen, after = [], ""
    while True:
        page = clean.get(f"/api/v1/jobs?pipeline=branches&limit=2{after}").json
        seen += ids(page)
        after = f"&after={page['last_id']}"
        if not page["has_more"]:
            break
    assert seen[:4] == [waiting, *good[::-1]] and len(set(seen)) == len(seen)
    at = int(ms(clean.job(good[1])["created_at"]))
    assert good[1] not in ids(clean.get(f"/api/v1/jobs?pipeline=branches&after=@{at}").json)
    assert good[0] in ids(clean.get(f"/api/v1/jobs?pipeline=branches&after=@{at}").json)
    assert clean.http("DELETE", f"/api/v1/jobs/{waiting}").status == 204
    problem(clean.get(f"/api/v1/jobs?after={waiting}"), 410, "expired")


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=-1", "after=x", "after=@", "status=done"])
def test_jobs_of_nonsense_is_400(rig, query):
    """Fails with: fcgi/api_list.c, list_begin: any status is known."""
    problem(rig.get("/api/v1/jobs?" + query), 400, "bad-json")


# ---- the command line ----


def test_cli_retry(clean):
    """Fails with: core/app/cli_retry.c, retry_online: `from` is not passed on."""
    clean.sim.rule({"status": 400}, {"contains": "two of shell"})
    id = failed(clean, "gamma", "shell")["id"]
    clean.sim.reset()
    clean.sim.rule({"status": 400}, {"contains": "two of shell"}, times=1)
    assert json.loads(clean.cli("retry", id, "--json")) == {"id": id, "status": "queued"}
    assert clean.wait_job(id)["status"] == "failed"
    assert said(clean.sim) == ["two of shell"]
    assert id in clean.cli("retry", id, "--from", "one")
    assert clean.wait_job(id)["status"] == "completed"
    assert said(clean.sim)[1:] == ["one of shell", "two of shell"]
    code, out, err = clean.cli("retry", id, status=None)
    assert code == 1 and out == "" and "has completed" in err
    assert clean.cli("retry", str(uuid.uuid4()), status=None)[0] == 1
    assert clean.cli("retry", status=None)[0] == clean.cli("retry", "x", status=None)[0] == 2
    assert "--from STAGE" in clean.cli("retry", "--help")
    clean.sim.rule({"status": 400}, {"contains": "shell 2"})
    id = failed(clean, "gamma", "shell 2")["id"]
    code, out, err = clean.cli("retry", id, "--from", "oen", status=None)
    assert code == 1 and 'did you mean "one"' in err
    error = json.loads(clean.cli("retry", id, "--from", "oen", "--json", status=1))["error"]
    assert "no stage" in error["message"]
