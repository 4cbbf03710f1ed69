"""Redis restarted and Redis away for longer than a lease: what is queued, running, waiting and watched goes on."""

import os
import signal

import outage
import pytest

import ledger
import samples

AWAY = float(os.environ.get("MILLRACE_AWAY", "0"))  # the long form: MILLRACE_AWAY=45 (a held call may take 60 s)


def watch(rig, id):
    with rig.stream(f"/api/v1/jobs/{id}/events", patience=90) as stream:
        assert stream.status == 200
        return list(stream)


def wait_for_end(rig, id):
    reply = rig.http("GET", f"/api/v1/jobs/{id}", headers={"Prefer": "wait=25"}, patience=90)
    return reply.status, reply.json


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["shutdown", "kill"])
def test_restart_while_jobs_are_everywhere(new_rig, number):
    """Queued, running, waiting for their next attempt, delayed, watched and waited for: all complete, nothing is asked
    twice, a stream that was open before ends without gap or duplicate; submits get 503 and are taken again afterwards.
    Fails with: core/state/store.c, store_open: `store->patience_ms = 5;`"""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS, "ask": samples.ask(retry={
        "attempts": 3, "backoff": "1500ms", "max_backoff": "1500ms"})}, appendonly="always",
        config={"lease": "5s", "concurrency": 5})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=10)
    r.sim.rule({"status": 500}, {"contains": "try again"}, times=1)
    retried = r.submit("ask", {"say": "try again"})["id"]
    r.wait_job(retried, until=lambda job: job["stages"]["ask"]["attempts"] >= 1)
    jobs = ledger.submit(r, 20)  # ten are held by the model, ten find no slot
    delayed = r.submit("ask", {"say": "later"}, delay="2s")["id"]
    r.sim.wait(held=10)
    held = next(id for n, id in jobs.items() if r.job(id)["status"] == "processing")
    stream = outage.Background(watch, r, held)
    waiting = outage.Background(wait_for_end, r, held)
    r.until(lambda: r.redis.pubsub_numsub(f"mr:{{0}}:watch:{held}")[0][1] == 1)
    processes = r.children()
    r.kill_redis(number)
    r.sim.release()
    r.until(lambda: r.get("/readyz").status == 503)
    outage.refused(r, "Redis cannot be reached")
    r.start_redis()
    r.until_ready()
    ledger.assert_done(r, jobs)
    for id in (delayed, retried):
        assert r.wait_job(id)["status"] == "completed"
    events = stream.result()
    assert [e.number for e in events] == list(range(1, len(events) + 1)), events
    assert events[-1].kind == "job.completed"
    assert waiting.result()[0] == 200
    assert r.children() == processes, "no process may end because Redis was away"
    assert all(count == 1 for text, count in ledger.asked(r.sim).items() if "try again" not in text)
    assert ledger.asked(r.sim)["try again"] == 2
    assert r.run("ask", {"say": "afterwards"})["status"] == "completed"


@pytest.mark.parametrize("how", ["stopped", "gone"])
def test_away_for_several_leases(new_rig, how):
    """Stopped: connections stay and nobody answers. Gone: killed, started late. Tasks that run keep running; answers that
    come meanwhile are stored afterwards and not asked for again; nobody takes over what only looks abandoned; a stream
    stays open and goes on; nothing spins, grows or floods the log.
    Fails with: core/state/store.c, store_open: `store->patience_ms = 5;` (the guard's own test: tests/unit/state/test_stop.c)."""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS}, appendonly="always",
                config={"lease": "1500ms", "concurrency": 25})  # both hold some, one has slots to take over into
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=40)
    jobs = ledger.submit(r, 40)
    r.sim.wait(held=40)
    fences = {id: outage.lanes(r, id)[0][1] for id in jobs.values()}
    stream = outage.Background(watch, r, list(jobs.values())[-1])
    r.until(lambda: r.redis.pubsub_numsub(f"mr:{{0}}:watch:{list(jobs.values())[-1]}")[0][1] == 1)
    redis = r.redis_process.pid
    if how == "stopped":
        os.kill(redis, signal.SIGSTOP)
    else:
        r.kill_redis()
    usage = outage.Usage(r)
    r.sim.release(20)
    outage.let_pass(r, AWAY or 12)  # longer than a command may take, too
    usage.assert_calm(lines=100 + 2 * int(AWAY))
    if how == "stopped":
        os.kill(redis, signal.SIGCONT)
    else:
        r.start_redis()
    r.until_ready()
    # Half have their answers and end; the others are still held: they must stay where they are for some leases more.
    done = r.until(lambda: (lambda ended: ended if len(ended) >= 20 else None)(
        [id for id in jobs.values() if r.redis.hget(f"mr:{{0}}:job:{id}", "status") == "completed"]))
    outage.let_pass(r, 4)
    held = [id for id in jobs.values() if id not in done]
    assert len(held) == 20
    outage.assert_no_takeovers(r, held, fences)
    r.sim.release()
    ledger.assert_done(r, jobs)
    assert all(count == 1 for count in ledger.asked(r.sim).values())
    events = stream.result()
    assert [e.number for e in events] == list(range(1, len(events) + 1)), events
    assert events[-1].kind == "job.completed"
