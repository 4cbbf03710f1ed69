"""An endpoint's limits hold over all worker processes; what waits for them uses no attempt and no time of its stage."""

import time

import samples

ONCE = samples.ask(timeout="1s", retry={"attempts": 1})


def limited(new_rig, sim=("--latency", "0ms"), **limits):
    return new_rig(workers=2, pipelines={"ask": ONCE}, sim=sim, config={"endpoints": {"openai": limits}})


def submit(r, count):
    return [r.submit("ask", {"say": f"call {n}"})["id"] for n in range(count)]


def all_completed(r, ids):
    for id in ids:
        job = r.wait_job(id)
        assert job["status"] == "completed", job


def test_max_in_flight(new_rig):
    r = limited(new_rig, sim=("--latency", "40ms"), max_in_flight=4)
    all_completed(r, submit(r, 40))
    assert r.sim.stats()["max_in_flight"] <= 4, r.sim.stats()


def test_rpm_spaces_requests_evenly(new_rig):
    """600 a minute: one each 100 ms, whichever process asks. The last of 25 waits longer than its stage's timeout."""
    r = limited(new_rig, rpm=600)
    began = time.time() * 1000
    all_completed(r, submit(r, 25))
    times = [e["at"] for e in r.sim.journal()]
    assert len(times) == 25
    # None before its place; later than it on a busy machine.
    for i, at in enumerate(times):
        assert at >= began + i * 100 - 10, (i, began, times)


def test_a_429_holds_up_every_worker(new_rig):
    """After a 429 with Retry-After nobody asks that endpoint until the time is over."""
    r = limited(new_rig, rpm=60000)
    r.sim.rule({"status": 429, "headers": {"Retry-After": "2"}}, times=1)
    first = submit(r, 1)
    r.sim.wait(ended=1)
    told = r.wait_job(first[0], until=lambda job: job["status"] != "processing")
    assert told["status"] == "waiting", told
    ids = [r.submit("ask", {"say": f"after {n}"})["id"] for n in range(10)]
    all_completed(r, first + ids)
    times = [e["at"] for e in r.sim.journal()]
    assert len(times) == 12
    assert times[1] - times[0] >= 1950, times
