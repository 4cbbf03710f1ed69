"""A job that has its process killed without being named, among jobs that have done nothing."""

import rig as rigs
import samples

MISBEHAVE = {"plugins": [str(rigs.BUILD / "plugins"), str(rigs.BUILD / "tests" / "plugins")]}


def test_killer_among_neighbours(new_rig):
    """A job whose process is killed by nobody's name (as the kernel does when memory is short) ends as poison after some
    twenty deaths; the jobs beside it, taken over with it, complete, and none of them is blamed.
    Fails with: core/work/room.c, room_suspect: `|| true` behind the count against the share."""
    killer = {"stages": [{"name": "kill", "plugin": "misbehave", "options": {"how": "kill"}}]}
    ask = samples.ask(timeout="60s")
    r = new_rig(workers=1, pipelines={"ask": ask, "killer": killer}, sim=("--latency", "1s"),
                config={**MISBEHAVE, "lease": "60s", "concurrency": 16})
    near = [r.submit("ask", {"say": f"near {i}"})["id"] for i in range(20)]
    r.sim.wait(requests=16)
    id = r.submit("killer", {}, priority="high")["id"]
    job = r.wait_job(id, patience=150)
    assert (job["status"], job["error"]["code"]) == ("failed", "poison"), job
    deaths = sum("how=\"killed by SIGKILL\"" in line for line in r.daemon.lines)
    assert deaths == 21, deaths
    for other in near:
        assert r.wait_job(other, patience=60)["status"] == "completed"
