"""`durability: aof` and `replica` of a pipeline: what is waited for, and what the job then says it has.

`aof` needs WAITAOF (Redis 7.2, Valkey), which Debian 12's Redis does not know: these are skipped without such a server
(tests/harness/newer-redis)."""

import pathlib
import signal
import subprocess
import time

import pytest
import rig as rig_module
import samples

HERE = pathlib.Path(__file__).resolve().parent
STEPS = {
    "stages": [
        samples.model("first", "first of {{ .input.n }}"),
        {**samples.model("second", "second of {{ .input.n }}"), "queue": "other"},
        {"name": "last", "plugin": "transform", "queue": "other", "options": {"output": {"n": "{{ .input.n }}"}}},
    ],
    "result": "{{ .last }}",
}


@pytest.fixture(scope="module")
def newer():
    """The path of a server that knows WAITAOF; tests/run fetches one."""
    found = subprocess.run(["sh", HERE.parent / "harness" / "newer-redis", rig_module.BUILD / "newer-redis", "have"],
                           capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.skip(found.stderr.strip())
    return found.stdout.strip()


def with_server(program, monkeypatch, tmp_path):
    """Rigs start `redis-server`: lets that be another program."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "redis-server").symlink_to(program)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def asked_and_got(job):
    return job.get("durability", {}).get("asked"), job.get("durability", {}).get("got")


def stats(rig, command):
    return rig.redis.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0)


def clients(rig):
    return {client["name"] for client in rig.redis.client_list()}


def test_none_costs_nothing(new_rig):
    """A pipeline that asks for nothing: no connection more, no wait, nothing in the job.
    Fails with: core/work/work_durable.c, work_durable: `enum durable_level asked = DURABLE_REPLICA;`"""
    r = new_rig(pipelines={"steps": STEPS})
    job = r.run("steps", {"n": "1"})
    assert job["status"] == "completed" and "durability" not in job
    assert not any(name.startswith("durable") for name in clients(r)), clients(r)
    assert stats(r, "wait") == 0


def test_aof_unknown(new_rig):
    """A server without WAITAOF: one warning at start, jobs run, and say that they have nothing and why.
    Fails with: core/state/durable.c, durable_submitted: no call of durable_note."""
    r = new_rig(workers=2, pipelines={"steps": {**STEPS, "durability": "aof"}})
    if r.redis.execute_command("COMMAND", "LIST", "FILTERBY", "PATTERN", "waitaof"):
        pytest.skip("the installed redis-server knows WAITAOF")
    r.daemon.wait_line("durability cannot be had.*WAITAOF")
    job = r.submit("steps", {"n": "1"})
    assert job["durability"] == {"asked": "aof", "got": "none", "reason": "WAITAOF is not known to this server"}
    done = r.wait_job(job["id"])
    assert done["status"] == "completed" and asked_and_got(done) == ("aof", "none")
    text = r.cli("status", job["id"])
    assert "durable  none instead of aof: WAITAOF is not known to this server" in text
    count = sum("durability cannot be had" in line for line in r.daemon.lines)
    assert count <= 3, "once in each process"


def test_aof_had(newer, new_rig, monkeypatch, tmp_path):
    """Every checkpoint is on the disk before what is built on it begins. Then the server is killed, with nothing but its file.
    Fails with: core/state/durable.c, ask: WAIT in the place of WAITAOF (`bool is_aof = false;`)."""
    with_server(newer, monkeypatch, tmp_path)
    r = new_rig(workers=2, pipelines={"steps": {**STEPS, "durability": "aof"}}, appendonly="always")
    r.sim.rule({"hold": True}, {"contains": "second of held"})
    held = r.submit("steps", {"n": "held"})
    assert held["durability"] == {"asked": "aof", "got": "aof"}
    r.sim.wait(held=1)
    job = r.run("steps", {"n": "1"})
    assert job["status"] == "completed" and asked_and_got(job) == ("aof", "aof")
    assert stats(r, "waitaof") >= 5
    assert stats(r, "wait") == 0
    assert "durable  aof" in r.cli("status", job["id"])
    r.kill_redis(signal.SIGKILL)
    r.start_redis()
    r.until_ready()
    r.sim.release()
    done = r.wait_job(held["id"], patience=60)
    assert done["status"] == "completed" and asked_and_got(done) == ("aof", "aof")
    assert sorted(e["text"] for e in r.sim.journal()) == [
        "first of 1", "first of held", "second of 1", "second of held"]


def answers_early(client):
    """Whether WAITAOF says yes twice in a moment although the file is synced once a second."""
    begin = time.monotonic()
    for n in range(2):
        client.set("probe", n)
        assert client.execute_command("WAITAOF", 1, 0, 3000)[0] == 1
    client.delete("probe")
    return time.monotonic() - begin < 0.3


def test_aof_everysec(newer, new_rig, monkeypatch, tmp_path):
    """With everysec a wait takes up to a second; a server that answers before its disk has anything (Redis 7.4, Valkey 8.0) is not
    believed: the job says `none`, and why.
    Fails with: core/state/durable.c, probe: `line->is_early = false;`"""
    with_server(newer, monkeypatch, tmp_path)
    r = new_rig(workers=1, pipelines={"steps": {**STEPS, "durability": "aof"}}, appendonly="everysec")
    job = r.run("steps", {"n": "1"}, patience=60)
    assert job["status"] == "completed"
    if answers_early(r.redis):
        r.daemon.wait_line("durability cannot be had.*before the disk has it")
        assert job["durability"] == {"asked": "aof", "got": "none",
                                     "reason": "WAITAOF of this server answers before the disk has it"}
    else:
        assert asked_and_got(job) == ("aof", "aof")


def test_aof_without_file(newer, new_rig, monkeypatch, tmp_path):
    """A server that knows WAITAOF and keeps no file: the same as one that does not know it, with another reason."""
    with_server(newer, monkeypatch, tmp_path)
    r = new_rig(workers=1, pipelines={"steps": {**STEPS, "durability": "aof"}})
    r.daemon.wait_line("durability cannot be had.*append-only file")
    job = r.submit("steps", {"n": "1"})
    assert job["durability"] == {"asked": "aof", "got": "none", "reason": "this server keeps no append-only file"}
    assert r.wait_job(job["id"])["status"] == "completed"


class Replica:
    """A replica of a rig's own Redis, which then has a port as well as its socket."""

    def __init__(self, rig):
        self.rig = rig
        port = rig.redis.config_get("port")["port"]
        self.process = rig_module.Process(
            "replica", ["redis-server", "--port", "0", "--unixsocket", rig.folder / "replica.sock", "--dir", rig.folder / "redis",
                        "--dbfilename", "replica.rdb", "--save", "", "--replicaof", "127.0.0.1", port],
            rig.folder / "log" / "replica.log", env=rig_module.marked(rig.folder))
        self.process.wait_line("(MASTER|PRIMARY) <-> REPLICA sync: Finished")
        rig.until(lambda: rig.redis.info("replication").get("slave0", {}).get("state") == "online")

    def pause(self):
        self.process.send(signal.SIGSTOP)

    def resume(self):
        self.process.send(signal.SIGCONT)

    def stop(self):
        self.resume()
        self.process.stop()


@pytest.fixture()
def replicated(new_rig, request):
    from replicated import free_ports

    def make(**options):
        r = new_rig(redis_options=("--port", str(free_ports(1)[0]), "--repl-diskless-sync-delay", "0"), **options)
        replica = Replica(r)
        request.addfinalizer(replica.stop)
        return r, replica

    return make


def test_replica_had(replicated):
    """With a replica: everything is there before it is built on.
    Fails with: core/work/work_ops.c, work_send_commit: no call of work_durable."""
    r, _ = replicated(workers=2, pipelines={"steps": {**samples.CHAIN, "durability": "replica"}})
    r.sim.rule({"hold": True}, {"contains": "second of"})
    before = stats(r, "wait")
    job = r.submit("steps", {"n": "1"})
    assert job["durability"] == {"asked": "replica", "got": "replica"}
    r.sim.wait(held=1)
    # The submission, the lane, the checkpoints of two stages.
    assert stats(r, "wait") - before >= 4
    r.sim.release()
    done = r.wait_job(job["id"])
    assert done["status"] == "completed" and done["result"]["n"] == "1" and asked_and_got(done) == ("replica", "replica")
    kinds = [e["event"] for e in r.events(job["id"]).json["data"]]
    assert kinds.count("job.completed") == 1 and kinds.count("stage.completed") == 4, kinds
    assert "durable  replica" in r.cli("status", job["id"])


def test_checkpoint_is_waited_for(replicated):
    """The next stage does not begin before its input is safe, while there is hope: a replica that stands still holds it up for the
    level's second, no longer; then the job goes on and says so, and says better once the replica is back.
    Fails with: core/work/work_lane.c, work_lane_main: no call of work_durable."""
    r, replica = replicated(workers=1, pipelines={"steps": {**STEPS, "durability": "replica"}})
    r.sim.rule({"hold": True}, {"contains": "first of"}, times=1)
    job = r.submit("steps", {"n": "1"})
    r.sim.wait(held=1)
    replica.pause()
    r.sim.release()
    r.sim.wait(requests=2)
    # What was not had is known before the second stage asks anything.
    assert asked_and_got(r.job(job["id"])) == ("replica", "none")
    assert r.wait_job(job["id"])["status"] == "completed"
    replica.resume()
    again = r.run("steps", {"n": "2"})
    assert asked_and_got(again) == ("replica", "replica")


def test_children(replicated):
    """A child has what its own pipeline asks for before its parent goes on, whoever runs it: here nobody serves its queue.
    Fails with: core/work/work_child.c, work_submit: no call of durable_submitted."""
    child = {"stages": [{"name": "say", "plugin": "echo", "queue": "nobodys"}], "durability": "replica"}
    parent = {"stages": [{"name": "reward", "plugin": "reward", "options": {"targets": [
        {"name": "sent", "mode": "dispatch", "pipeline": "child", "input": {"n": "{{ .input.n }}"}}]}}]}
    r, _ = replicated(workers=1, pipelines={"child": child, "parent": parent}, config={"queues": ["default"]})
    job = r.run("parent", {"n": "1"})
    assert job["status"] == "completed" and "durability" not in job
    listed = [r.redis.hgetall(key) for key in r.redis.keys("mr:{0}:job:*")]
    children = [each for each in listed if each["pipeline"] == "child"]
    assert len(children) == 1 and children[0]["status"] == "queued"
    assert children[0]["durability"] == "replica replica"
