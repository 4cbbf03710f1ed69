"""Replies that are lost, connections that break anywhere, scripts and keys that are thrown away under load."""

import itertools
import os
import threading

import outage
from cutter import Cutter

import ledger
import samples

SEED = int(os.environ.get("MILLRACE_SEED", "7"))
PARENT = {
    "stages": [{"name": "order", "plugin": "reward", "retry": ledger.RETRY, "options": {"targets": [
        {"name": "child", "mode": "call", "pipeline": "ask", "timeout": "60s", "input": {"say": "child of {{ .input.n }}"}},
        {"name": "row", "mode": "dispatch", "pipeline": "ask", "input": {"say": "dispatched by {{ .input.n }}"}}]}}],
    "result": "{{ .order }}",
}


def test_connections_break_at_any_byte(new_rig, tmp_path):
    """200 jobs with rows, 30 with a called and a dispatched child, while every connection to Redis breaks after some
    thousand bytes: all complete, each model call, row, child and event once.
    Fails with: core/io/redis.c, run: `bool again = false;` (nothing is sent again)."""
    gate = tmp_path / "gate.sock"
    r = new_rig(workers=2, start=False, config={"redis": {"url": f"unix:{gate}"}, "concurrency": 40, "lease": "5s"},
                pipelines={"books": ledger.BOOKS, "ask": samples.ask(retry=ledger.RETRY), "parent": PARENT})
    ledger.prepare(r)
    with Cutter(gate, r.redis_socket, seed=SEED, least=2000, most=60000) as cutter:
        r.start_daemon()
        r.start_lighttpd()
        r.until_ready()

        def submit(pipeline, n):
            """Sent again when the answer is 503, as a client does; the id is the same."""
            return r.until(lambda: (lambda reply: reply.json["id"] if reply.status in (200, 202) else None)(
                r.submit(pipeline, {"n": n}, status=None)))

        jobs = {f"n{i}.": submit("books", f"n{i}.") for i in range(200)}
        parents = {f"p{i}.": submit("parent", f"p{i}.") for i in range(30)}
        ledger.assert_done(r, jobs, patience=120)
        for n, id in parents.items():
            job = r.wait_job(id, patience=60)
            assert job["status"] == "completed", job
            assert "child of " + n in str(job["result"]), job
        # Dispatched children are nobody's to wait for.
        r.until(lambda: all(ledger.asked(r.sim)[f"dispatched by {n}"] > 0 for n in parents), patience=60)
        assert cutter.cuts > 50, cutter.cuts
        asked = ledger.asked(r.sim)
        for n in parents:
            assert asked[f"child of {n}"] == 1 and asked[f"dispatched by {n}"] == 1, n
        assert r.daemon.is_alive() and len(r.workers()) == 2
        r.stop_daemon()


def test_script_flush_under_load(new_rig):
    """The scripts are thrown away hundreds of times while jobs run: each is loaded again where it is missed.
    Fails with: core/io/redis_link.c, link_script_error: `return SCRIPT_BUG;` for NOSCRIPT."""
    r = new_rig(workers=2, pipelines={"books": ledger.BOOKS, "ask": samples.ask(retry=ledger.RETRY), "parent": PARENT},
                config={"lease": "1s"})
    ledger.prepare(r)
    over, count = threading.Event(), itertools.count()

    def flush():
        while not over.wait(0.01):
            r.redis.script_flush()
            next(count)

    flusher = outage.Background(flush)
    try:
        jobs = ledger.submit(r, 100)
        parents = [r.submit("parent", {"n": f"p{i}."})["id"] for i in range(10)]
        ledger.assert_done(r, jobs)
        assert all(r.wait_job(id)["status"] == "completed" for id in parents)
    finally:
        over.set()
    flusher.result()
    assert next(count) > 20


def test_everything_is_deleted_by_accident(new_rig):
    """FLUSHALL while jobs run: what is gone is gone, and nothing else breaks. Their workers are told LOST and drop them; the
    next submit, of the same jobs too, runs as ever, in the same processes.
    Fails with: core/state/claim.c, run: `if (false && is_no_group(&first))`."""
    r = new_rig(workers=2, pipelines={"ask": samples.ask()}, config={"lease": "1500ms"})
    r.sim.rule({"hold": True}, {"contains": "gone"}, times=10)
    ids = [r.submit("ask", {"say": f"gone {i}"})["id"] for i in range(10)]
    r.sim.wait(held=10)
    processes = r.children()
    streams = [outage.Background(lambda id: r.stream(f"/api/v1/jobs/{id}/events").body(), id) for id in ids[:2]]
    r.until(lambda: r.redis.pubsub_numsub(f"mr:{{0}}:watch:{ids[1]}")[0][1] == 1)
    r.redis.flushall()
    assert r.job(ids[0], status=404)
    r.sim.wait(client_closed=10)  # dropped at the next renewal
    for stream in streams:
        stream.result()  # ends, in place of waiting for what cannot come
    r.sim.release()
    r.until_ready()
    assert r.run("ask", {"say": "afterwards"})["status"] == "completed"
    again = r.submit("ask", {"say": "gone 0"})["id"]
    assert again == ids[0] and r.wait_job(again)["status"] == "completed"
    assert r.children() == processes
