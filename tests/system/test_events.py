"""Events of a job: replay, live, resuming without gap or duplicate, the list, and the end."""

import threading

import samples

RIG = {
    "workers": 2,
    "pipelines": {
        "echo": samples.ECHO,
        "ask": samples.ask(),
        "chain": samples.CHAIN_TWO_QUEUES,
        "flaky": samples.ask(retry={"attempts": 3, "backoff": "50ms", "max_backoff": "50ms"}),
    },
}


def numbered(events):
    return [e.number for e in events if e.number is not None]


def test_replay_of_a_finished_job(rig):
    job = rig.run("echo", {"replay": 1})
    with rig.stream(f"/api/v1/jobs/{job['id']}/events") as stream:
        assert stream.status == 200
        assert stream.headers["Content-Type"].split(";")[0] == "text/event-stream"
        assert stream.headers["Cache-Control"] == "no-store"
        events = list(stream)
        assert stream.retry == 3000
    assert [e.kind for e in events] == ["job.queued", "stage.started", "stage.completed", "job.completed"]
    assert numbered(events) == [1, 2, 3, 4]
    for event in events:
        assert event.data["job"] == job["id"] and event.data["at"].endswith("Z"), event
        assert 0 <= event.data["progress"] <= 100
    assert events[1].data["stage"] == "say" and events[-1].data["progress"] == 100


def test_follow_live(rig, sim):
    sim.rule({"hold": True}, {"contains": "live"})
    id = rig.submit("ask", {"say": "live"})["id"]
    with rig.stream(f"/api/v1/jobs/{id}/events") as stream:
        seen = stream.until("stage.started")
        sim.wait(held=1)
        sim.release()
        seen += list(stream)
    assert numbered(seen) == list(range(1, len(seen) + 1))
    assert seen[-1].kind == "job.completed"


def test_resume_by_last_event_id(rig, sim):
    sim.rule({"hold": True}, {"contains": "resume"})
    id = rig.submit("ask", {"say": "resume"})["id"]
    path = f"/api/v1/jobs/{id}/events"
    with rig.stream(path) as stream:
        first = stream.until("stage.started")
    sim.wait(held=1)
    with rig.stream(path, {"Last-Event-ID": str(first[-1].number)}) as stream:
        sim.release()
        rest = list(stream)
    assert numbered(first) + numbered(rest) == list(range(1, len(first) + len(rest) + 1))
    assert rest[-1].kind == "job.completed"
    with rig.stream(path + f"?after={rest[-2].number}") as stream:
        assert [e.kind for e in stream] == ["job.completed"]


def test_nothing_newer_is_204(rig):
    job = rig.run("echo", {"end": 1})
    reply = rig.http("GET", f"/api/v1/jobs/{job['id']}/events",
                     headers={"Accept": "text/event-stream", "Last-Event-ID": "4"})
    assert reply.status == 204 and reply.body == b"", reply


def test_malformed_positions_are_400(rig):
    job = rig.run("echo", {"positions": 1})
    path = f"/api/v1/jobs/{job['id']}/events"
    assert rig.get(path, Last_Event_ID="x", Accept="text/event-stream").status == 400
    assert rig.get(path + "?after=-1").status == 400
    assert rig.get(path + "?after=1x", Accept="text/event-stream").status == 400


def test_list_as_json(rig):
    job = rig.run("echo", {"list": 1})
    reply = rig.events(job["id"])
    assert reply.status == 200 and reply.json["object"] == "list", reply
    assert [e["event"] for e in reply.json["data"]] == ["job.queued", "stage.started", "stage.completed", "job.completed"]
    assert [e["id"] for e in reply.json["data"]] == [1, 2, 3, 4]
    assert [e["id"] for e in rig.events(job["id"], after=2).json["data"]] == [3, 4]


def test_retrying_is_told(rig, sim):
    sim.rule({"status": 500}, {"contains": "wobbly"}, times=2)
    job = rig.run("flaky", {"say": "wobbly"})
    assert job["status"] == "completed" and job["stages"]["ask"]["attempts"] == 3, job
    kinds = [e["event"] for e in rig.events(job["id"]).json["data"]]
    assert kinds.count("stage.retrying") == 2 and kinds.count("stage.started") == 3, kinds


def test_failed_end(rig, sim):
    sim.rule({"status": 400, "message": "not so"}, {"contains": "wrong"})
    id = rig.submit("ask", {"say": "wrong"})["id"]
    with rig.stream(f"/api/v1/jobs/{id}/events") as stream:
        events = list(stream)
    assert [e.kind for e in events][-2:] == ["stage.failed", "job.failed"]
    assert "not so" in str(events[-1].data)


def test_fifty_watchers_of_one_job_see_the_same(rig, sim):
    sim.rule({"hold": True}, {"contains": "first of fifty"})
    id = rig.submit("chain", {"n": "fifty"})["id"]
    sim.wait(held=1)
    streams = [rig.stream(f"/api/v1/jobs/{id}/events") for _ in range(50)]
    seen = [None] * len(streams)

    def follow(i):
        seen[i] = [(e.number, e.kind) for e in streams[i]]

    threads = [threading.Thread(target=follow, args=(i,)) for i in range(len(streams))]
    for thread in threads:
        thread.start()
    sim.release()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    for stream in streams:
        stream.close()
    assert all(each == seen[0] for each in seen)
    assert [number for number, _ in seen[0]] == list(range(1, len(seen[0]) + 1))
    assert seen[0][-1][1] == "job.completed"


def test_a_client_that_leaves_costs_nothing(rig, sim):
    sim.rule({"hold": True}, {"contains": "leaver"})
    id = rig.submit("ask", {"say": "leaver"})["id"]
    sim.wait(held=1)
    for _ in range(20):
        stream = rig.stream(f"/api/v1/jobs/{id}/events")
        stream.until("stage.started")
        stream.close()
    sim.release()
    assert rig.wait_job(id)["status"] == "completed"
