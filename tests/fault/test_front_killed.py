"""kill -9 of the front while clients wait: jobs go on, a new front takes over the socket, streams resume."""

import ledger
import rig as rigs


def test_front_killed(new_rig):
    """Fails with: fcgi/api_events.c, read_position: `*ret_after = 0;` before it returns true."""
    r = new_rig(workers=1, pipelines={"books": ledger.BOOKS})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=20)
    jobs = ledger.submit(r, 20)
    r.sim.wait(held=20)
    id = next(iter(jobs.values()))
    path = f"/api/v1/jobs/{id}/events"
    stream = r.stream(path)
    first = []
    for event in stream:
        first.append(event)
        if event.kind == "stage.started" and event.data["stage"] == "second":
            break
    front, workers = r.front(), r.workers()
    r.kill(front)
    rigs.until_gone(front)
    assert list(stream) == []
    stream.close()
    r.sim.release()
    # The listening socket was never closed: the next request waits in its queue for the new front.
    assert r.get("/healthz").status == 200
    r.until_ready()
    with r.stream(path, {"Last-Event-ID": str(first[-1].number)}) as again:
        rest = list(again)
    numbers = [e.number for e in first + rest]
    assert numbers == list(range(1, len(numbers) + 1)), numbers
    assert rest[-1].kind == "job.completed"
    ledger.assert_done(r, jobs)
    assert r.workers() == workers and r.front() != front
