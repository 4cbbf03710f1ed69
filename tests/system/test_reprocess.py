"""Dead letters that run again by themselves: schedule, budget, breaker, and what watches see of it."""

import concurrent.futures

import rig as rigs
import samples
from test_dead import ONCE, dead, failed, ms, retry, said

SOON = {"dead": {"schedule": ["1s", "1s"]}}


def automatic(new_rig, pipelines=None, **dead_options):
    return new_rig(workers=2, pipelines=pipelines or {"ask": samples.ask(retry=ONCE)},
                   config={"dead": {**SOON["dead"], **dead_options}})


def test_runs_again_by_itself(new_rig):
    """A job that failed in class retry says when it runs again, and does; the schedule ends.
    Fails with: core/state/lib/ending.lua, ending_write: the member `d ID` is not added."""
    r = automatic(new_rig)
    r.sim.rule({"status": 503}, {"contains": "weak"}, times=1)
    r.sim.rule({"status": 503}, {"contains": "hopeless"})
    weak, hopeless = (r.submit("ask", {"say": say})["id"] for say in ("weak", "hopeless"))
    job = r.wait_job(hopeless, until=("failed",))
    assert 0 <= ms(job["next_retry_at"]) - ms(job["finished_at"]) - 1000 < 200, job
    # Between two runs it is a dead letter.
    def listed():
        found = [e for e in dead(r)["data"] if e["id"] == hopeless and e["next_retry_at"]]
        return found and found[0]
    assert ms(r.until(listed)["next_retry_at"]) >= ms(job["next_retry_at"])
    assert r.wait_job(weak, until=("completed",))["stages"]["ask"]["attempts"] == 2
    job = r.wait_job(hopeless, until=lambda job: job["status"] == "failed" and "next_retry_at" not in job)
    assert len([text for text in said(r.sim) if text == "hopeless"]) == 3
    entry = dead(r)["data"]
    assert [e["id"] for e in entry] == [hopeless] and entry[0]["next_retry_at"] is None
    events = r.events(hopeless).json["data"]
    assert ["next_retry_at" in e["data"] for e in events if e["event"] == "job.failed"] == [True, True, False], events


def test_streams_and_waits_outlast_what_runs_again(new_rig):
    """A failure that is not the last ends neither a stream nor a wait.
    Fails with: core/state/watch.c, ends_watch: next_retry_at is not looked for."""
    r = automatic(new_rig)
    r.sim.rule({"status": 503}, {"contains": "outlast"}, times=1)
    r.sim.rule({"hold": True}, {"contains": "outlast"})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(r.post, "/api/v1/jobs", {"pipeline": "ask", "input": {"say": "outlast"}}, {"Prefer": "wait=25"})
        r.sim.wait(requests=1)
        id = rigs.job_id("ask", {"say": "outlast"})
        with r.stream(f"/api/v1/jobs/{id}/events") as stream:
            seen = stream.until("job.failed")
            assert seen[-1].data["next_retry_at"], seen
            r.sim.wait(held=1)
            assert not waiting.done()
            r.sim.release()
            rest = list(stream)
        assert [e.kind for e in rest] == ["job.queued", "stage.started", "stage.completed", "job.completed"], rest
        reply = waiting.result(rigs.PATIENCE)
    assert reply.status == 200 and reply.json["status"] == "completed", reply


def test_the_last_failure_ends_them(new_rig):
    """Fails with: core/state/lib/ending.lua, ending_write: the last delay counts for every turn."""
    r = automatic(new_rig, schedule=["1s"])
    r.sim.rule({"status": 503}, {"contains": "ends"})
    reply = r.post("/api/v1/jobs", {"pipeline": "ask", "input": {"say": "ends"}}, {"Prefer": "wait=25"})
    assert reply.status == 200 and reply.json["status"] == "failed" and "next_retry_at" not in reply.json, reply
    with r.stream(f"/api/v1/jobs/{reply.json['id']}/events") as stream:
        assert [e.kind for e in stream].count("job.failed") == 2
    assert r.sim.stats()["requests"] == 2


def test_permanent_failures_stay(new_rig):
    """Fails with: core/state/lib/ending.lua, ending_write: any class is due again."""
    r = automatic(new_rig)
    r.sim.rule({"status": 400}, {"contains": "wrong"})
    r.sim.rule({"status": 503}, {"contains": "weak"})
    wrong, weak = failed(r, "ask", "wrong")["id"], r.submit("ask", {"say": "weak"})["id"]
    r.wait_job(weak, until=lambda job: job["status"] == "failed" and "next_retry_at" not in job)
    job = r.job(wrong)
    assert job["status"] == "failed" and "next_retry_at" not in job
    assert said(r.sim).count("wrong") == 1 and said(r.sim).count("weak") == 3


def test_budget_holds_others_back(new_rig):
    """Fails with: core/state/wake.lua, kind d: the budget is not looked at."""
    r = automatic(new_rig, budget=1)
    r.sim.rule({"status": 503}, {"contains": "budget"}, times=4)
    made = [r.submit("ask", {"say": f"budget {n}"})["id"] for n in range(4)]

    def put_off():
        jobs = [r.job(id) for id in made]
        late = [job for job in jobs if job.get("next_retry_at") and ms(job["next_retry_at"]) - ms(job["finished_at"]) > 30000]
        # At the turn of a minute two may go.
        return len(late) >= 2 and [job["status"] for job in jobs].count("completed") >= 1
    r.until(put_off)


def test_breaker_holds_a_fingerprint(new_rig):
    """Equal failures in a row: the rest stays until by hand. Other failures are not concerned.
    Fails with: core/state/lib/ending.lua, ending_write: the breaker is not looked at."""
    r = automatic(new_rig, {"ask": samples.ask(retry=ONCE), "other": samples.ask(retry=ONCE)}, schedule=["1h"], breaker=3)
    r.sim.rule({"status": 503}, {"contains": "alike"})
    jobs = [r.wait_job(r.submit("ask", {"say": f"alike {n}"})["id"], until=("failed",)) for n in range(4)]
    assert ["next_retry_at" in job for job in jobs] == [True, True, False, False], jobs
    job = r.wait_job(r.submit("other", {"say": "alike"})["id"], until=("failed",))
    assert "next_retry_at" in job
    # By hand and with success: the breaker closes.
    r.sim.reset()
    retry(r, jobs[3]["id"])
    assert r.wait_job(jobs[3]["id"])["status"] == "completed"
    # What it held runs by itself then.
    assert r.wait_job(jobs[2]["id"], until=("completed",))["stages"]["ask"]["attempts"] == 2
    r.sim.rule({"status": 503}, {"contains": "alike"})
    job = r.wait_job(r.submit("ask", {"say": "alike 9"})["id"], until=("failed",))
    assert "next_retry_at" in job, job


def test_discard_of_one_that_is_due_is_its_end(new_rig):
    """Watches end and the follow-up runs: it was put off until no retry is due.
    Fails with: core/state/lib/giveup.lua, giveup_write: no event."""
    pipeline = {**samples.ask(retry=ONCE), "on_failure": [
        {"name": "tell", "mode": "dispatch", "pipeline": "note", "input": {"of": "{{ .input.say }}"}}]}
    r = automatic(new_rig, {"ask": pipeline, "note": samples.ECHO}, schedule=["1h"])
    r.sim.rule({"status": 503}, {"contains": "due"})
    id = r.submit("ask", {"say": "due"})["id"]
    with r.stream(f"/api/v1/jobs/{id}/events") as stream:
        assert "next_retry_at" in stream.until("job.failed")[-1].data
        assert r.get("/api/v1/jobs?pipeline=note").json["data"] == []
        assert r.post("/api/v1/dead/discard", {"code": "upstream_status"}).json["done"] == 1
        rest = list(stream)
    assert [e.kind for e in rest] == ["job.failed"] and "next_retry_at" not in rest[0].data, rest
    assert "next_retry_at" not in r.job(id) and dead(r)["data"] == []
    assert r.redis.zrange("mr:{0}:due", 0, -1) == []
    r.until(lambda: [job["status"] for job in r.get("/api/v1/jobs?pipeline=note").json["data"]] == ["completed"])


def test_by_hand_while_one_is_due(new_rig):
    """A retry by hand takes the place of the one that was due.
    Fails with: core/state/lib/rerun.lua, rerun_write: the member `d ID` stays in due."""
    r = automatic(new_rig, schedule=["1h"])
    r.sim.rule({"status": 503}, {"contains": "hand"}, times=1)
    job = r.wait_job(r.submit("ask", {"say": "hand"})["id"], until=("failed",))
    assert job["next_retry_at"]
    retry(r, job["id"])
    job = r.wait_job(job["id"], until=("completed",))
    assert "next_retry_at" not in job and r.redis.zrange("mr:{0}:due", 0, -1) == []
    assert dead(r)["data"] == []
