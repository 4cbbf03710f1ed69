"""Dead letters: list, run again and discard by a filter, over HTTP and on the command line."""

import concurrent.futures
import datetime
import hashlib
import json
import uuid

import pytest

import rig as rigs
import samples
from test_jobs import problem

ONCE = {"attempts": 1}
RIG = {
    "workers": 2,
    "config": {"dead": {"schedule": []}},
    "pipelines": {
        "alpha": samples.ask(retry=ONCE), "beta": samples.ask(retry=ONCE), "gamma": {
            "stages": [samples.model("one", "one of {{ .input.say }}", retry=ONCE),
                       samples.model("two", "two of {{ .input.say }}", retry={"attempts": 2, "backoff": "50ms"})],
            "result": "{{ .two.text }}"},
    },
}


@pytest.fixture()
def clean(rig, sim):
    """The rig without dead letters."""
    assert rig.post("/api/v1/dead/discard", {"all": True}).status == 202
    return rig


def said(sim):
    """What the model was asked, in order."""
    return [entry["text"] for entry in sim.journal()]


def failed(r, pipeline, say, patience=rigs.PATIENCE):
    job = r.run(pipeline, {"say": say}, patience=patience)
    assert job["status"] == "failed", job
    return job


def dead(r, query=""):
    reply = r.get("/api/v1/dead" + query)
    assert reply.status == 200, reply
    return reply.json


def ids(page):
    return [entry["id"] for entry in page["data"]]


def retry(r, id, body=None, status=202, headers=None):
    reply = r.post(f"/api/v1/jobs/{id}/retry", {} if body is None else body, headers)
    assert reply.status == status, reply
    return reply


def ms(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000


def three(r, tag):
    """Three failures: of three pipelines, with three codes. Their ids, oldest first."""
    r.sim.rule({"status": 401}, {"contains": f"{tag} auth"})
    r.sim.rule({"status": 429, "code": "insufficient_quota"}, {"contains": f"{tag} quota"})
    r.sim.rule({"status": 503}, {"contains": f"two of {tag} down"})
    return [failed(r, pipeline, f"{tag} {word}")["id"]
            for pipeline, word in (("alpha", "auth"), ("beta", "quota"), ("gamma", "down"))]


# ---- the list ----


def test_list_tells_what_failed_and_filters(clean):
    """Fails with: core/state/dead.c, matches: the line of `code` returns true."""
    a, b, c = three(clean, "list")
    page = dead(clean)
    assert page["object"] == "list" and page["has_more"] is False and page["last_id"] == a
    assert ids(page) == [c, b, a]
    entry = page["data"][0]
    job = clean.job(c)
    assert entry == {
        "id": c, "pipeline": "gamma", "stage": "two", "class": "retry", "code": "upstream_status", "message": job["error"]["message"],
        "attempts": 2, "fingerprint": "gamma/two/upstream_status", "at": job["finished_at"], "next_retry_at": None}
    assert [e["class"] for e in page["data"][1:]] == ["permanent", "permanent"]
    assert [e["code"] for e in page["data"][1:]] == ["quota", "auth"]
    for query, want in (("pipeline=alpha", [a]), ("code=quota", [b]), ("stage=two", [c]), ("stage=ask", [b, a]),
                        ("pipeline=alpha&code=quota", []), ("pipeline=no-such", []),
                        (f"before={job['finished_at']}", [b, a]), ("before=2001-01-01T00:00:00Z", [])):
        assert ids(dead(clean, "?" + query)) == want, query
    assert dead(clean, "?pipeline=no-such")["last_id"] is None


def test_list_in_pages(clean):
    """Fails with: core/state/dead.c, dead_list: last_id of a full page is scan.id."""
    clean.sim.rule({"status": 400}, {"contains": "paged"})
    want = [failed(clean, "alpha", f"paged {n}")["id"] for n in range(5)][::-1]
    failed(clean, "beta", "paged other")
    seen, after = [], ""
    while True:
        page = dead(clean, f"?pipeline=alpha&limit=2{after}")
        assert len(page["data"]) <= 2
        seen += ids(page)
        after = f"&after={page['last_id']}"
        if not page["has_more"]:
            break
    assert seen == want
    assert ids(dead(clean, f"?pipeline=alpha&after={want[-1]}")) == []
    # The place of a letter that has left the list is not known any more.
    assert clean.post("/api/v1/dead/discard", {"before": clean.job(want[0])["finished_at"], "pipeline": "alpha"}).status == 202
    problem(clean.get(f"/api/v1/dead?after={want[1]}"), 410, "expired")


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "limit=", "after=12", "before=yesterday", "after=@x"])
def test_list_of_nonsense_is_400(rig, query):
    """Fails with: fcgi/paging.c, read_limit: up to 999."""
    problem(rig.get("/api/v1/dead?" + query), 400, "bad-json")


def test_the_epoch_is_a_limit_too(clean):
    """Nothing failed before it: to act on that is to act on nothing, not on everything.
    Fails with: core/state/dead.c, dead_filter_before: `filter->before_ms = (uint64_t)at_ms;`"""
    a, b, c = three(clean, "epoch")
    epoch = "1970-01-01T00:00:00Z"
    assert dead(clean, f"?before={epoch}")["data"] == []
    for act in ("retry", "discard"):
        reply = clean.post(f"/api/v1/dead/{act}", {"before": epoch})
        assert reply.status == 202 and (reply.json["matched"], reply.json["done"]) == (0, 0), reply
    assert "0 matched" in clean.cli("dead", "discard", "--before", epoch)
    assert ids(dead(clean)) == [c, b, a]


def test_expired_jobs_are_passed_over(clean):
    """Fails with: core/state/dead.c, add_letter: no test of reply->count."""
    a, b, c = three(clean, "expired")
    clean.redis.delete(f"mr:{{0}}:job:{b}", f"mr:{{0}}:out:{b}", f"mr:{{0}}:log:{b}")
    assert ids(dead(clean)) == [c, a]
    clean.sim.reset()
    assert clean.post("/api/v1/dead/retry", {"all": True}).json["matched"] == 2
    assert clean.post("/api/v1/dead/discard", {"all": True}).json["matched"] == 0
    clean.redis.zrem("mr:{0}:dead", b)
    for id in (a, c):
        assert clean.wait_job(id)["status"] == "completed"


# ---- acting on a filter ----


def test_dry_run_changes_nothing(clean):
    """Fails with: fcgi/api_dead.c, sweep: is_dry does not set DEAD_COUNT."""
    three(clean, "dry")
    before = clean.redis_text()
    for verb in ("retry", "discard"):
        reply = clean.post(f"/api/v1/dead/{verb}", {"stage": "ask", "dry_run": True})
        assert reply.status == 200, reply
        assert (reply.json["matched"], reply.json["done"], reply.json["has_more"]) == (2, 0, False)
        assert clean.post(f"/api/v1/dead/{verb}", {"all": True, "dry_run": True}).json["matched"] == 3
    assert clean.redis_text() == before


def test_retry_acts_on_the_filter_alone(clean):
    """Fails with: core/state/dead.c, act: is_fresh is false."""
    a, b, c = three(clean, "again")
    clean.sim.reset()
    clean.sim.rule({"status": 503}, {"contains": "two of again down"}, times=1)
    reply = clean.post("/api/v1/dead/retry", {"pipeline": "gamma"})
    assert reply.status == 202, reply
    assert (reply.json["matched"], reply.json["done"], reply.json["has_more"]) == (1, 1, False)
    job = clean.wait_job(c)
    # Fresh attempts: the first one fails again, and there is a second.
    assert job["status"] == "completed" and job["stages"]["two"]["attempts"] == 2, job
    assert [text.split(" of ")[0] for text in said(clean.sim)] == ["two", "two"]
    assert ids(dead(clean)) == [b, a]
    assert clean.job(a)["status"] == clean.job(b)["status"] == "failed"


def test_retry_before_a_time(clean):
    """Fails with: core/state/dead.c, dead_sweep: before_ms is always the time of the call."""
    a, b, c = three(clean, "times")
    at = clean.job(b)["finished_at"]
    clean.sim.reset()
    reply = clean.post("/api/v1/dead/retry", {"before": at})
    assert (reply.json["matched"], reply.json["done"]) == (1, 1)
    assert reply.json["before"] == at
    assert clean.wait_job(a)["status"] == "completed"
    assert ids(dead(clean)) == [c, b]


def test_discard_acts_on_the_filter_alone(clean):
    """Fails with: core/state/dead.c, act: DEAD_DISCARD runs them again."""
    a, b, c = three(clean, "discard")
    reply = clean.post("/api/v1/dead/discard", {"code": "quota"})
    assert reply.status == 202 and (reply.json["matched"], reply.json["done"]) == (1, 1), reply
    assert ids(dead(clean)) == [c, a]
    job = clean.job(b)
    assert job["status"] == "failed" and "next_retry_at" not in job
    assert [e["event"] for e in clean.events(b).json["data"]].count("job.queued") == 1, "it was run again"
    # It may still be run again by hand.
    clean.sim.reset()
    retry(clean, b)
    assert clean.wait_job(b)["status"] == "completed"


@pytest.mark.parametrize("body, pointer, words", [
    ({}, "", '"all": true'), ({"dry_run": True}, "", '"all": true'), ({"all": False}, "", '"all": true'),
    ({"all": True, "code": "auth"}, "/all", "beside"), ({"pipline": "alpha"}, "/pipline", '"pipeline"'),
    ({"pipeline": 5}, "/pipeline", "string"), ({"stage": ""}, "/stage", "empty"), ({"code": "x" * 65}, "/code", "name"),
    ({"before": "soon"}, "/before", "RFC 3339"), ({"all": "yes"}, "/all", "true or false"),
    ({"code": "auth", "dry_run": 1}, "/dry_run", "true or false"), ([], "", "object"),
])
@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_what_is_not_said_clearly_is_refused(clean, verb, body, pointer, words):
    """Fails with: fcgi/api_dead.c, read_order: an empty filter is not refused."""
    if not dead(clean)["data"]:
        clean.sim.rule({"status": 400}, {"contains": "stays"})
        failed(clean, "alpha", f"stays {uuid.uuid4()}")
    count = len(dead(clean)["data"])
    found = problem(clean.post(f"/api/v1/dead/{verb}", body), 422, "validation")
    assert [e["pointer"] for e in found["errors"]] == [pointer], found
    assert words in found["errors"][0]["detail"], found
    assert len(dead(clean)["data"]) == count >= 1


def test_bodies_that_are_none(rig):
    """Fails with: fcgi/routes.h: dead_retry is offered for PUT."""
    problem(rig.post("/api/v1/dead/retry", "{", {"Content-Type": "application/json"}), 400, "bad-json")
    problem(rig.post("/api/v1/dead/retry", "a=1", {"Content-Type": "text/plain"}), 415, "unsupported-media-type")
    reply = rig.http("DELETE", "/api/v1/dead")
    problem(reply, 405, "method-not-allowed")
    assert reply.header("Allow") == "GET, HEAD"


def copies(r, id, count):
    """Further dead letters, written as copies of one that failed. Their ids."""
    made = [str(uuid.uuid5(uuid.NAMESPACE_DNS, f"copy {n}")) for n in range(count)]
    job, at = r.redis.hgetall(f"mr:{{0}}:job:{id}"), r.redis.zscore("mr:{0}:dead", id)
    for first in range(0, count, 1000):
        pipe = r.redis.pipeline(transaction=False)
        for n, copy in enumerate(made[first: first + 1000]):
            pipe.hset(f"mr:{{0}}:job:{copy}", mapping=job)
            pipe.expire(f"mr:{{0}}:job:{copy}", 3600)
            pipe.zadd("mr:{0}:dead", {copy: at - 1 - (first + n) // 3})
        pipe.execute()
    return made


def test_a_hundred_thousand_disturb_nobody(new_rig):
    """A scan over all of them is cut in pages; others are served meanwhile; an order is cut and says so.
    Fails with: fcgi/api_dead.c, DEAD_SWEEP_MAX 0 (no limit)."""
    r = new_rig(workers=1, pipelines={"alpha": samples.ask(retry=ONCE), "echo": samples.ECHO}, config={"dead": {"schedule": []}})
    r.sim.rule({"status": 400}, {"contains": "many"})
    rare = failed(r, "alpha", "many")["id"]
    made = copies(r, rare, 100000)
    r.redis.hset(f"mr:{{0}}:job:{made[-1]}", "pipeline", "rare")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        scans = [pool.submit(r.get, "/api/v1/dead?pipeline=rare") for _ in range(3)]
        served = 0
        while not all(scan.done() for scan in scans):
            assert r.run("echo", {"n": served})["status"] == "completed"
            served += 1
    assert served >= 1
    for scan in scans:
        page = scan.result().json
        found = ids(page)
        while page["has_more"]: # after five seconds a request answers with what it has
            page = dead(r, f"?pipeline=rare&after={page['last_id']}")
            found += ids(page)
        assert found == [made[-1]]
    slow = r.redis.slowlog_get(100)
    assert [e for e in slow if e["duration"] > 100000 and b"EVALSHA" in e["command"]] == [], slow
    assert dead(r, "?limit=200")["has_more"] is True
    r.redis.zremrangebyrank("mr:{0}:dead", 0, 74999)
    assert r.post("/api/v1/dead/discard", {"all": True, "dry_run": True}).json["matched"] == 25001
    matched, rounds, more = 0, 0, {"all": True}
    while True:
        reply = r.post("/api/v1/dead/discard", more).json
        assert reply["matched"] == reply["done"] <= 10000, reply
        matched, rounds, more = matched + reply["matched"], rounds + 1, {"all": True, "before": reply["before"]}
        if not reply["has_more"]:
            break
    assert matched == 25001 and rounds >= 3
    assert dead(r)["data"] == []


# ---- who may ----


def test_scopes_and_what_a_token_sees(new_rig):
    """Fails with: fcgi/api_list.c, is_wanted: no auth_sees."""
    tokens = {name: f"{name}-secret" for name in ("one", "two", "chief")}
    scopes = {"one": ["submit", "read"], "two": ["submit", "read"], "chief": ["admin"]}
    r = new_rig(workers=1, pipelines={"alpha": samples.ask(retry=ONCE)}, config={"dead": {"schedule": []}, "auth": {"tokens": [
        {"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest(), "scopes": scopes[name]}
        for name, secret in tokens.items()]}})

    def call(who, method, path, body=None):
        return r.http(method, path, body, {"Authorization": f"Bearer {tokens[who]}"} if who else {})

    r.sim.rule({"status": 400}, {"contains": "mine"})
    mine = {who: call(who, "POST", "/api/v1/jobs", {"pipeline": "alpha", "input": {"say": f"mine {who}"}}).json["id"] for who in ("one", "two")}
    r.until(lambda: len(call("chief", "GET", "/api/v1/dead").json["data"]) == 2)
    for who, status, slug in ((None, 401, "unauthorized"), ("one", 403, "forbidden")):
        for method, path in (("GET", "/api/v1/dead"), ("POST", "/api/v1/dead/retry"), ("POST", "/api/v1/dead/discard"),
                             ("POST", "/api/v1/pipelines/alpha/pause"), ("POST", "/api/v1/pipelines/alpha/resume")):
            problem(call(who, method, path, {"all": True} if method == "POST" else None), status, slug)
    assert call("one", "GET", "/api/v1/pipelines/alpha").status == 200
    for who in ("one", "two"):
        assert ids(call(who, "GET", "/api/v1/jobs").json) == [mine[who]]
    assert sorted(ids(call("chief", "GET", "/api/v1/jobs").json)) == sorted(mine.values())
    # Another's job is not there, whatever is asked of it.
    problem(call("one", "GET", f"/api/v1/jobs?after={mine['two']}"), 410, "expired")
    problem(call("one", "POST", f"/api/v1/jobs/{mine['two']}/retry", {}), 404, "not-found")
    problem(call("one", "DELETE", f"/api/v1/jobs/{mine['two']}"), 404, "not-found")
    assert call("chief", "GET", f"/api/v1/jobs/{mine['two']}").json["status"] == "failed"
    assert call("two", "POST", f"/api/v1/jobs/{mine['two']}/retry", {}).status == 202
    r.until(lambda: len(call("chief", "GET", "/api/v1/dead").json["data"]) == 2)
    assert call("one", "DELETE", f"/api/v1/jobs/{mine['one']}").status == 204


# ---- the command line ----


def test_cli_dead(clean):
    """Fails with: core/app/cli_dead.c, dead_check: nothing is asked of retry and discard."""
    a, b, c = three(clean, "cli")
    page = json.loads(clean.cli("dead", "list", "--json"))
    assert page == dead(clean)
    assert json.loads(clean.cli("dead", "list", "--code", "auth", "--json")) == dead(clean, "?code=auth")
    text = clean.cli("dead", "list", "--stage=ask")
    assert a in text and b in text and c not in text and "alpha/ask/auth" in text
    code, out, err = clean.cli("dead", "list", "--limit", "2", status=None)
    assert code == 0 and a not in out and f"--after {b}" in err
    assert a in clean.cli("dead", "list", "--after", b)
    before = clean.redis_text()
    assert json.loads(clean.cli("dead", "retry", "--all", "--dry-run", "--json")) == {"matched": 3, "done": 0}
    assert "1 would be discarded" in clean.cli("dead", "discard", a, "--dry-run")
    for words in (["retry"], ["discard"], ["retry", "--all", "--code", "auth"], ["retry", a, "--all"], ["retry", "not-an-id"],
                  ["lsit"], [], ["retry", "--before", "soon"], ["list", a], ["list", "--limit", "0"], ["retry", "--al"],
                  ["discard", a, "--limit", "1"]):
        code, out, err = clean.cli("dead", *words, status=None)
        assert code == 2 and out == "" and "Usage: millrace dead" in err, words
    assert 'did you mean "list"' in clean.cli("dead", "lsit", status=None)[2]
    assert clean.redis_text() == before
    clean.sim.reset()
    assert "1 matched, 1 run again" in clean.cli("dead", "retry", "--code", "auth")
    assert clean.wait_job(a)["status"] == "completed"
    assert json.loads(clean.cli("dead", "retry", b, "--json")) == {"matched": 1, "done": 1}
    assert clean.wait_job(b)["status"] == "completed"
    assert "1 matched, 1 discarded" in clean.cli("dead", "discard", "--before", "2100-01-01T00:00:00Z")
    code, out, err = clean.cli("dead", "retry", c, status=None)
    assert code == 1 and "is no dead letter" in err
    assert clean.job(c)["status"] == "failed"
    assert clean.cli("dead", "list") == "" and "no dead letters" in clean.cli("dead", "list", status=None)[2]
