"""The primary dies, or stands still, under load; three sentinels make its replica the primary, and everything goes on by
itself. Real redis-server and redis-sentinel programs with the configuration that ships (harness/replicated.py)."""

import collections
import threading

import ledger
import pytest
from replicated import Replicated


@pytest.fixture()
def new_group(tmp_path, request):
    """Servers and sentinels that end after the rig (which is asked for after this)."""
    def make(**options):
        group = Replicated(tmp_path / "redis", **options).__enter__()
        request.addfinalizer(group.__exit__)
        return group

    return make


class Submitter:
    """A client that submits one job after another until it is told to stop. Each is answered 202, or 503 with Retry-After."""

    def __init__(self, rig, name):
        self.rig, self.name = rig, name
        self.answered, self.refused = {}, collections.Counter()
        self.changed = threading.Condition()
        self.is_over, self.wrong = False, None
        self.thread = threading.Thread(target=self._main, daemon=True)
        self.thread.start()

    def _main(self):
        number = 0
        while not self.is_over:
            number += 1
            n = f"{self.name}{number}."
            try:
                reply = self.rig.submit("books", {"n": n}, status=None)
            except OSError as error:
                self.refused[str(error)] += 1
                continue
            with self.changed:
                if reply.status == 202:
                    self.answered[n] = reply.json
                else:
                    self.refused[reply.status] += 1
                    if reply.status != 503 or not reply.header("Retry-After"):
                        self.wrong = self.wrong or reply
                self.changed.notify_all()
            if reply.status != 202:
                with self.rig.daemon.changed:
                    self.rig.daemon.changed.wait(0.05)

    def until(self, count, patience=90):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.answered) >= count, patience), (len(self.answered), self.refused)

    def stop(self):
        self.is_over = True
        self.thread.join(60)
        assert not self.thread.is_alive()
        assert not self.wrong, self.wrong


def got(job):
    return job.get("durability", {"asked": "none", "got": "none"})


def statuses(rig, ids):
    """What Redis has for these jobs, by HTTP; 404 for one that it has forgotten."""
    found = {}
    for id in ids:
        def there():
            reply = rig.http("GET", f"/api/v1/jobs/{id}")
            return reply if reply.status in (200, 404) else None

        reply = rig.until(there)
        found[id] = reply.json["status"] if reply.status == 200 else 404
    return found


def books(durability):
    return {"books": {**ledger.BOOKS, "durability": durability}}


@pytest.mark.parametrize("durability", ["none", "replica"])
@pytest.mark.parametrize("fault", ["kill", "stop"])
def test_failover(new_group, new_rig, durability, fault, capsys):
    """What was acknowledged survives when a replica had it, and for `durability: replica` Millrace knows which that is. A
    window before the fault in which nothing reaches the replica loses what falls into it, and the job said so ("got": "none").
    Fails with: core/state/durable.c, ask: `if (count > 0 || !is_aof)`."""
    group = new_group()
    r = new_rig(workers=2, pipelines=books(durability), config={"redis": {"url": group.url}, "lease": "5s"})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=20)
    answers = {f"n{i}.": r.submit("books", {"n": f"n{i}."}) for i in range(20)}
    first = list(answers)
    r.sim.wait(held=20)
    assert {got(job)["got"] for job in answers.values()} == {durability}
    answers.update({f"d{i}.": r.submit("books", {"n": f"d{i}."}, delay="4s") for i in range(5)})
    workers = r.workers()

    with r.stream(f"/api/v1/jobs/{answers['n19.']['id']}/events", patience=90) as stream:
        # From here on nothing reaches the replica: submits and checkpoints alike.
        group.pause(1)
        group.client(0).execute_command("CLIENT", "KILL", "TYPE", "replica")
        window = {f"w{i}.": r.submit("books", {"n": f"w{i}."}) for i in range(3)}
        answers.update(window)
        r.sim.release(5)
        r.until(lambda: sum(ledger.rows(r).values()) >= 20 + 5)
        if durability == "replica":
            for job in window.values():
                assert got(job)["got"] == "none" and got(job)["reason"] in (
                    "no replica has confirmed it within 1000 ms", "no replica is connected"), job
        load = Submitter(r, "l")
        load.until(1)
        if fault == "kill":
            group.kill(0)
        else:
            group.pause(0)
        group.resume(1)
        primary = group.until_primary_is_not(0)
        load.until(len(load.answered) + 10)
        load.stop()
        r.sim.release()
        answers.update(load.answered)

        # Ended or forgotten, each of them.
        before = statuses(r, [job["id"] for job in answers.values()])
        lost = [n for n, job in answers.items() if before[job["id"]] == 404]
        for n, job in answers.items():
            if n not in lost:
                done = r.wait_job(job["id"], patience=90)
                assert done["status"] == "completed" and done["result"]["n"] == n, done
        assert stream.until("job.completed"), "the subscription was renewed"
    counts = ledger.asked(r.sim)
    again = [text for text, count in counts.items() if count > 1 and text.split()[-1] not in lost]
    with capsys.disabled():
        print(f"\n{fault}, durability {durability}: {len(answers)} acknowledged, {len(lost)} of them forgotten "
              f"({len([n for n in lost if n in window])} of {len(window)} in the window), {len(again)} stages run again; "
              f"refused meanwhile: {dict(load.refused)}")
    assert set(window) <= set(lost), "the window did not lose anything: the test tests nothing"
    for n in lost:
        assert got(answers[n])["got"] == "none", (n, answers[n])
    # What was stored long before is not asked for again, nor are those that were waiting for an answer.
    for n in first:
        assert counts[f"first of {n}"] == 1, (n, counts[f"first of {n}"])
    for n in first[:20]:
        assert counts[f"second of {n}"] <= 2
    # The same input is the same id, and now it is kept.
    for n in lost:
        job = r.submit("books", {"n": n})
        assert job["id"] == answers[n]["id"]
        assert r.wait_job(job["id"], patience=60)["status"] == "completed"
    assert r.workers() == workers, "no process may end because of a failover"

    # The old primary comes back, with what only it has: it becomes a replica and changes nothing.
    ids = [job["id"] for job in answers.values()]
    before = statuses(r, ids)
    if fault == "kill":
        group.start_server(0)
    else:
        group.resume(0)
    group.until_follows(0, primary)
    assert statuses(r, ids) == before
    job = r.run("books", {"n": "after."})
    assert job["status"] == "completed"
    if durability == "replica":
        assert got(job) == {"asked": "replica", "got": "replica"}


def test_primary_without_replicas(new_group, new_rig):
    """min-replicas-to-write 1, as the configuration that ships has it: the new primary takes no writes while nobody follows it.
    Clients are told so; jobs wait. When the old one follows, everything goes on.
    Fails with: core/io/redis_link.c, link_script_error: no "NOREPLICAS" among `busy`."""
    group = new_group(min_replicas=1)
    r = new_rig(workers=2, pipelines=books("replica"), config={"redis": {"url": group.url}, "lease": "5s"})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=10)
    jobs = ledger.submit(r, 10)
    r.sim.wait(held=10)
    group.kill(0)
    primary = group.until_primary_is_not(0)
    r.sim.release()

    def refused():
        reply = r.submit("books", {"n": "none."}, status=None)
        return reply if reply.status == 503 and "replica" in reply.json["detail"] else None

    reply = r.until(refused, patience=90)
    assert reply.header("Retry-After"), reply
    assert set(statuses(r, jobs.values()).values()) == {"processing"}
    group.start_server(0)
    group.until_follows(0, primary)
    ledger.assert_done(r, jobs, patience=90)
    assert all(count == 1 for count in ledger.asked(r.sim).values())


def test_switch_by_hand(new_group, new_rig):
    """SENTINEL FAILOVER in the middle of a load. For ten seconds after it the old primary goes on as one, and what it takes is
    lost; but everybody leaves it at once.
    Fails with: core/io/redis_link.c, link_open: no link_switch_open."""
    group = new_group()
    r = new_rig(workers=2, pipelines=books("replica"), config={"redis": {"url": group.url}, "lease": "5s"})
    ledger.prepare(r)
    r.sim.rule({"hold": True}, {"contains": "second of"}, times=10)
    jobs = ledger.submit(r, 10)
    r.sim.wait(held=10)
    load = Submitter(r, "l")
    load.until(5)
    group.sentinel(0).execute_command("SENTINEL FAILOVER", "millrace")
    primary = group.until_primary_is_not(0)
    probe = [0]

    def moved():
        probe[0] += 1
        reply = r.submit("books", {"n": f"probe{probe[0]}."}, status=None)
        return reply.status == 202 and group.client(primary).exists(f"mr:{{0}}:job:{reply.json['id']}")

    r.until(moved, patience=60)
    assert group.client(0).info("replication")["role"] == "master", "moved only when the old primary was told to follow"
    load.until(len(load.answered) + 10)
    load.stop()
    r.sim.release()
    group.until_follows(0, primary)
    kept = statuses(r, [job["id"] for job in load.answered.values()])
    for n, job in load.answered.items():
        assert kept[job["id"]] != 404 or got(job)["got"] == "none", (n, job)
        if kept[job["id"]] != 404:
            jobs[n] = job["id"]
    for n, id in jobs.items():
        assert r.wait_job(id, patience=90)["status"] == "completed", n
