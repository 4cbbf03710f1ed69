"""POST /api/v1/jobs through lighttpd: every status of the API, ids, idempotency, waiting."""

import concurrent.futures
import http.client
import json
import uuid

import pytest

import rig as rigs
import samples

RIG = {
    "workers": 2,
    "pipelines": {"echo": samples.ECHO, "strict": samples.STRICT, "ask": samples.ask(), "nap": samples.NAP,
                  "flaky": samples.ask(retry={"attempts": 1})},
}


def problem(reply, status, slug):
    """Asserts an RFC 9457 problem of that status and kind, and gives it back."""
    assert reply.status == status, reply
    assert reply.header("Content-Type").split(";")[0] == "application/problem+json", reply
    assert reply.header("X-Request-Id"), reply
    assert reply.header("Cache-Control") == "no-store", reply
    found = reply.json
    assert found["type"] == f"urn:millrace:problem:{slug}", found
    assert found["status"] == status and found["title"] and isinstance(found["detail"], str), found
    return found


def test_submit_is_202_with_all_headers(rig):
    reply = rig.post("/api/v1/jobs", {"pipeline": "echo", "input": {"a": 1}})
    assert reply.status == 202, reply
    job = reply.json
    assert job["object"] == "job" and job["pipeline"] == "echo"
    assert job["status"] in ("queued", "processing", "completed")
    assert reply.header("Location") == f"/api/v1/jobs/{job['id']}"
    assert int(reply.header("Retry-After")) >= 0
    assert reply.header("ETag") and reply.header("X-Request-Id")
    assert reply.header("Cache-Control") == "no-store"
    assert reply.header("Content-Type").split(";")[0] == "application/json"
    done = rig.wait_job(job["id"])
    assert done["status"] == "completed" and done["progress"] == 100
    assert done["result"] == {"a": 1}
    assert done["stages"]["say"]["status"] == "completed" and done["stages"]["say"]["attempts"] == 1
    for member in ("created_at", "started_at", "finished_at", "expires_at"):
        assert done[member].endswith("Z"), done
    assert done["created_at"] <= done["started_at"] <= done["finished_at"] < done["expires_at"]


def test_id_is_the_documented_uuid5(rig):
    value = {"b": [1, 2.5, "ü", None], "a": {"z": True, "y": "\n\""}}
    job = rig.submit("echo", value)
    assert job["id"] == rigs.job_id("echo", value)
    assert uuid.UUID(job["id"]).version == 5
    key = rig.submit("echo", {"x": 2}, headers={"Idempotency-Key": "order-17"})
    assert key["id"] == rigs.job_id("echo", key="order-17")


def test_wait_answers_200_with_the_finished_job(rig):
    reply = rig.post("/api/v1/jobs", {"pipeline": "echo", "input": {"wait": 1}}, {"Prefer": "wait=10"})
    assert reply.status == 200, reply
    assert reply.header("Preference-Applied").startswith("wait")
    assert reply.json["status"] == "completed" and reply.json["result"] == {"wait": 1}


def test_wait_that_is_too_short_answers_202(rig):
    reply = rig.post("/api/v1/jobs", {"pipeline": "nap", "input": {"wait": 2}}, {"Prefer": "wait=1"})
    assert reply.status == 202, reply
    assert rig.post(f"/api/v1/jobs/{reply.json['id']}/cancel").status in (200, 202)
    assert rig.wait_job(reply.json["id"])["status"] == "cancelled"


def test_unknown_prefer_is_ignored(rig):
    reply = rig.post("/api/v1/jobs", {"pipeline": "echo", "input": {"prefer": 1}}, {"Prefer": "handling=lenient, x=y"})
    assert reply.status == 202, reply
    assert reply.header("Preference-Applied") is None


def test_same_input_runs_once(rig, sim):
    body = {"pipeline": "ask", "input": {"say": "once only"}}
    first = rig.post("/api/v1/jobs", body)
    assert first.status == 202 and first.header("Idempotent-Replayed") is None, first
    done = rig.wait_job(first.json["id"])
    for _ in range(2):
        again = rig.post("/api/v1/jobs", json.dumps({"input": {"say": "once only"}, "pipeline": "ask"}),
                         {"Content-Type": "application/json"})
        assert again.status == 200, again
        assert again.json["id"] == first.json["id"]
        assert again.header("Idempotent-Replayed") == "true"
        assert again.json["result"] == done["result"]
    assert sim.stats()["requests"] == 1


def test_three_at_once_run_once(rig, sim):
    sim.rule({"hold": True}, {"contains": "three at once"})
    body = {"pipeline": "ask", "input": {"say": "three at once"}}
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(lambda _: rig.post("/api/v1/jobs", body), range(3)))
    assert [r.status for r in replies] == [202, 202, 202], replies
    assert len({r.json["id"] for r in replies}) == 1
    assert sorted(r.header("Idempotent-Replayed") or "" for r in replies) == ["", "true", "true"]
    sim.wait(held=1)
    sim.release()
    assert rig.wait_job(replies[0].json["id"])["status"] == "completed"
    assert sim.stats()["requests"] == 1


@pytest.mark.parametrize("quote", ["{}", '"{}"'])
def test_idempotency_key(rig, sim, quote):
    key = quote.format(f"key-{quote}-".replace('"', "q").replace("{}", "x"))
    body = {"pipeline": "ask", "input": {"say": "keyed " + key}}
    first = rig.post("/api/v1/jobs", body, {"Idempotency-Key": key})
    assert first.status == 202, first
    assert first.json["id"] == rigs.job_id("ask", key=key.strip('"'))
    rig.wait_job(first.json["id"])
    again = rig.post("/api/v1/jobs", body, {"Idempotency-Key": key.strip('"')})
    assert again.status == 200 and again.json["id"] == first.json["id"]
    assert again.header("Idempotent-Replayed") == "true"
    problem(rig.post("/api/v1/jobs", {"pipeline": "ask", "input": {"say": "other"}}, {"Idempotency-Key": key}),
            422, "idempotency-key-reuse")
    # The same key in another pipeline is another job.
    other = rig.post("/api/v1/jobs", {"pipeline": "echo", "input": {"say": "x"}}, {"Idempotency-Key": key})
    assert other.status == 202 and other.json["id"] != first.json["id"]
    assert sim.stats()["requests"] == 1


@pytest.mark.parametrize("key", ["x" * 256, '"open', '""'])
def test_malformed_idempotency_key_is_400(rig, key):
    reply = rig.post("/api/v1/jobs", {"pipeline": "echo", "input": {}}, {"Idempotency-Key": key})
    assert reply.status == 400, (key, reply)


def test_fresh_runs_anew(rig, sim):
    body = {"pipeline": "ask", "input": {"say": "fresh"}}
    first = rig.post("/api/v1/jobs", body, {"Prefer": "wait=10"}).json
    second = rig.post("/api/v1/jobs", {**body, "fresh": True}, {"Prefer": "wait=10"})
    assert second.status == 200 and second.json["id"] != first["id"], second
    assert second.header("Idempotent-Replayed") is None
    assert sim.stats()["requests"] == 2


def test_failed_job_runs_again_from_where_it_failed(rig, sim):
    sim.rule({"status": 400, "message": "no such thing"}, {"contains": "second chance"}, times=1)
    body = {"pipeline": "flaky", "input": {"say": "second chance"}}
    first = rig.post("/api/v1/jobs", body, {"Prefer": "wait=10"})
    assert first.status == 200 and first.json["status"] == "failed", first
    assert first.json["error"]["stage"] == "ask" and "no such thing" in first.json["error"]["message"]
    again = rig.post("/api/v1/jobs", body, {"Prefer": "wait=10"})
    assert again.json["id"] == first.json["id"]
    assert again.status == 200 and again.json["status"] == "completed", again


def test_metadata_priority_and_deadline_are_taken(rig):
    job = rig.submit("echo", {"m": 1}, metadata={"user": "u1"}, priority="high", deadline="5m")
    assert rig.wait_job(job["id"])["metadata"] == {"user": "u1"}


def test_delay_waits(rig):
    job = rig.submit("echo", {"later": 1}, delay="600ms")
    assert job["status"] == "waiting", job
    done = rig.wait_job(job["id"])
    assert done["status"] == "completed"
    events = rig.events(job["id"]).json["data"]
    queued, started = events[0], next(e for e in events if e["event"] == "stage.started")
    assert started["data"]["at"] > queued["data"]["at"]


def test_deadline_ends_a_job(rig):
    job = rig.submit("nap", {"deadline": 1}, deadline="400ms")
    done = rig.wait_job(job["id"])
    assert done["status"] == "failed" and done["error"]["code"] == "deadline", done


@pytest.mark.parametrize("body, why", [
    ('{"pipeline":"echo","input":{}', "cut off"),
    ("", "empty"),
    ('{"pipeline":"echo","input":{"a":1,"a":2}}', "a key twice"),
    ('{"pipeline":"echo","input":{"a":1e999}}', "a number out of range"),
    (b'{"pipeline":"echo","input":{"a":"\xff"}}', "bad UTF-8"),
    ('{"pipeline":"echo","input":{"a":"\\ud800"}}', "a lone surrogate"),
    ('{"pipeline":"echo","input":' + "[" * 65 + "]" * 65 + "}", "nested too deeply"),
    ('{"pipeline":"echo","input":{}} x', "more behind it"),
    ('{"pipeline":"echo","input":{"a":123456789012345678901234567890}}', "an integer out of range"),
])
def test_bad_json_is_400(rig, body, why):
    reply = rig.post("/api/v1/jobs", body, {"Content-Type": "application/json"})
    problem(reply, 400, "bad-json")


@pytest.mark.parametrize("body, pointer", [
    ([], ""),
    ({}, "/pipeline"),
    ({"pipeline": 7, "input": {}}, "/pipeline"),
    ({"pipeline": "echo", "input": {}, "priority": "urgent"}, "/priority"),
    ({"pipeline": "echo", "input": {}, "delay": "ten"}, "/delay"),
    ({"pipeline": "echo", "input": {}, "delay": 10}, "/delay"),
    ({"pipeline": "echo", "input": {}, "deadline": "5 minutes"}, "/deadline"),
    ({"pipeline": "echo", "input": {}, "fresh": "yes"}, "/fresh"),
    ({"pipeline": "echo", "input": {}, "metadata": {"a": 1}}, "/metadata/a"),
    ({"pipeline": "echo", "input": {}, "run_at": "tomorrow"}, "/run_at"),
    ({"pipeline": "echo", "input": {}, "pipline": "x"}, "/pipline"),
    ({"pipeline": "strict", "input": {"count": 0}}, "/input/name"),
    ({"pipeline": "strict", "input": {"name": "", "count": 1}}, "/input/name"),
    ({"pipeline": "strict", "input": {"name": "x", "count": 0}}, "/input/count"),
    ({"pipeline": "strict", "input": "x"}, "/input"),
])
def test_wrong_shape_is_422_with_pointers(rig, body, pointer):
    found = problem(rig.post("/api/v1/jobs", body), 422, "validation")
    pointers = [e["pointer"] for e in found["errors"]]
    assert pointer in pointers, found
    assert all(isinstance(e["detail"], str) and e["detail"] for e in found["errors"])


def test_over_a_count_is_413(rig):
    body = {"pipeline": "echo", "input": {}, "metadata": {str(i): "x" for i in range(17)}}
    found = problem(rig.post("/api/v1/jobs", body), 413, "payload-too-large")
    assert "/metadata" in found["detail"]


def test_all_input_errors_at_once(rig):
    found = problem(rig.post("/api/v1/jobs", {"pipeline": "strict", "input": {"name": "", "count": "x"}}), 422, "validation")
    assert {"/input/name", "/input/count"} <= {e["pointer"] for e in found["errors"]}


def test_unknown_pipeline_is_404(rig):
    found = problem(rig.post("/api/v1/jobs", {"pipeline": "ecko", "input": {}}), 404, "not-found")
    assert "ecko" in found["detail"]


def test_content_encoding_is_415(rig):
    problem(rig.http("POST", "/api/v1/jobs", b"\x1f\x8b\x08", {"Content-Encoding": "gzip", "Content-Type": "application/json"}),
            415, "unsupported-media-type")


def test_identity_encoding_is_taken(rig):
    reply = rig.post("/api/v1/jobs", {"pipeline": "echo", "input": {"i": "d"}}, {"Content-Encoding": "identity"})
    assert reply.status == 202, reply


def test_request_id_is_taken_over_or_made(rig):
    replies = [rig.get("/healthz").header("X-Request-Id") for _ in range(2)]
    assert all(replies) and replies[0] != replies[1]


def test_unknown_path_is_404_and_wrong_method_405(rig):
    problem(rig.get("/api/v1/nothing"), 404, "not-found")
    problem(rig.get("/api/v1/jobs/../../etc/passwd"), 404, "not-found")
    for method, path, allowed in [
        ("DELETE", "/api/tasks", {"GET", "HEAD", "POST"}),
        ("PUT", "/api/v1/jobs", {"POST"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
        ("PATCH", "/api/v1/jobs/x/cancel", {"POST"}),
    ]:
        reply = rig.http(method, path)
        problem(reply, 405, "method-not-allowed")
        assert allowed <= {m.strip() for m in reply.header("Allow").split(",")}, reply


def test_head_has_no_body(rig):
    job = rig.run("echo", {"head": 1})
    reply = rig.http("HEAD", f"/api/v1/jobs/{job['id']}")
    assert reply.status == 200 and reply.body == b"" and reply.header("ETag"), reply


def test_unknown_job_is_404(rig):
    for path in ("", "/result", "/events"):
        problem(rig.get(f"/api/v1/jobs/{uuid.uuid4()}{path}"), 404, "not-found")
    problem(rig.get("/api/v1/jobs/not-a-uuid"), 404, "not-found")
    problem(rig.post(f"/api/v1/jobs/{uuid.uuid4()}/cancel"), 404, "not-found")


def test_etag_304_and_waiting_for_a_change(rig, sim):
    sim.rule({"hold": True}, {"contains": "etag"})
    id = rig.submit("ask", {"say": "etag"})["id"]
    sim.wait(held=1)
    job = rig.wait_job(id, until=("processing",))
    reply = rig.get(f"/api/v1/jobs/{id}")
    etag = reply.header("ETag")
    assert reply.header("Retry-After"), reply
    same = rig.get(f"/api/v1/jobs/{id}", If_None_Match=etag)
    assert same.status == 304 and same.body == b"", same
    assert same.header("ETag") == etag
    assert rig.get(f"/api/v1/jobs/{id}", If_None_Match='"other"').status == 200
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(rig.http, "GET", f"/api/v1/jobs/{id}", None, {"Prefer": "wait=20", "If-None-Match": etag})
        sim.release()
        reply = waiting.result()
    assert reply.status == 200 and reply.header("ETag") != etag, reply
    done = rig.wait_job(id)
    assert done["status"] == "completed" and job["status"] == "processing"
    last = rig.get(f"/api/v1/jobs/{id}")
    assert last.header("Retry-After") is None
    assert rig.get(f"/api/v1/jobs/{id}", If_None_Match=last.header("ETag")).status == 304


def test_result_200_409_424(rig, sim):
    done = rig.run("echo", {"result": [1, 2]})
    reply = rig.get(f"/api/v1/jobs/{done['id']}/result")
    assert reply.status == 200 and reply.json == {"result": [1, 2]}, reply
    sim.rule({"hold": True}, {"contains": "unfinished"})
    id = rig.submit("ask", {"say": "unfinished"})["id"]
    reply = rig.get(f"/api/v1/jobs/{id}/result")
    problem(reply, 409, "job-not-finished")
    assert reply.header("Retry-After")
    sim.wait(held=1)
    sim.release()
    rig.wait_job(id)
    sim.rule({"status": 400, "message": "refused"}, {"contains": "hopeless"})
    failed = rig.run("ask", {"say": "hopeless"})
    assert failed["status"] == "failed", failed
    reply = rig.get(f"/api/v1/jobs/{failed['id']}/result")
    assert reply.status == 424, reply
    assert failed["error"]["code"] in json.dumps(reply.json), reply


def test_queue_full_is_429(new_rig):
    r = new_rig(pipelines={"ask": samples.ask(), "echo": samples.ECHO}, config={"limits": {"queue_max": 3}})
    r.sim.rule({"hold": True})
    ids = [r.submit("ask", {"say": f"full {i}"})["id"] for i in range(3)]
    r.sim.wait(held=3)
    reply = r.submit("ask", {"say": "one too many"}, status=None)
    problem(reply, 429, "queue-full")
    assert int(reply.header("Retry-After")) >= 1
    # What is there already is still answered.
    again = r.submit("ask", {"say": "full 0"}, status=None)
    assert again.status == 202 and again.header("Idempotent-Replayed") == "true", again
    r.sim.release()
    for id in ids:
        assert r.wait_job(id)["status"] == "completed"
    assert r.run("echo", {"room": "again"})["status"] == "completed"


def test_many_over_kept_connections(rig):
    """Sixteen clients, each one kept connection: 400 jobs, every one answered and completed."""
    def client(number):
        connection = http.client.HTTPConnection("127.0.0.1", rig.port, timeout=rigs.PATIENCE)
        ids = []
        for i in range(25):
            body = json.dumps({"pipeline": "echo", "input": {"client": number, "i": i}})
            connection.request("POST", "/api/v1/jobs", body, {"Content-Type": "application/json", "Prefer": "wait=20"})
            reply = connection.getresponse()
            job = json.loads(reply.read())
            assert reply.status == 200 and job["result"] == {"client": number, "i": i}, job
            ids.append(job["id"])
        connection.close()
        return ids

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        ids = sum(pool.map(client, range(16)), [])
    assert len(set(ids)) == 400


def test_curl(rig):
    code, out, err = rig.curl("-i", rig.url("/api/v1/jobs"), "-H", "Content-Type: application/json", "-H", "Prefer: wait=10",
                              "-d", '{"pipeline":"echo","input":{"by":"curl"}}')
    assert code == 0, err
    head, _, body = out.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    assert json.loads(body)["result"] == {"by": "curl"}
