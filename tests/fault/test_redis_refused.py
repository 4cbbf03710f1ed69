"""A Redis that will not do, at start and under way: said once and clearly; what waiting can mend goes on by itself."""

import json

import outage
import redis as redis_library
from cutter import Cutter

import samples

ASK = {"ask": samples.ask()}


def start(r):
    r.start_daemon()
    r.start_lighttpd()


def test_a_replica_at_start(new_rig):
    """redis.url names a replica: nothing is written, log, readyz and submits say why; promoted, it is taken at once.
    Fails with: core/io/redis_link.c, link_greet: without GREET_ROLE."""
    r = new_rig(start=False, pipelines=ASK)
    r.redis.replicaof("127.0.0.1", "1")
    start(r)
    r.daemon.wait_line("READONLY.*role slave")
    r.until(lambda: "replica" in r.get("/readyz").json["checks"]["redis"])
    outage.refused(r, "Redis is read-only")
    done, out, err = r.cli("submit", "ask", "-i", json.dumps({"say": "x"}), status=None)
    assert done == 1 and "role slave" in out + err, (out, err)
    usage = outage.Usage(r)
    outage.let_pass(r, 3)
    usage.assert_calm(lines=60)
    assert r.redis.dbsize() == 0
    r.redis.replicaof("NO", "ONE")
    r.until_ready()
    assert r.run("ask", {"say": "promoted"})["status"] == "completed"


def test_too_old(new_rig, tmp_path):
    """Redis 6 (this one, with another number in its INFO) is refused, and with what would be right.
    Fails with: core/state/store.c, check_server: `major < 6`."""
    gate = tmp_path / "gate.sock"
    r = new_rig(start=False, pipelines=ASK, config={"redis": {"url": f"unix:{gate}"}})
    version = r.redis.info("server")["redis_version"]
    older = "6" + version[1:]
    change = lambda data: data.replace(b"redis_version:" + version.encode(), b"redis_version:" + older.encode())
    with Cutter(gate, r.redis_socket, change=change):
        r.start_daemon()
        line = r.daemon.wait_line("Redis is version .*")
        assert older in line.group(0) and "7.0 or newer" in line.string, line.string
        status, out, err = r.cli("submit", "ask", "-i", json.dumps({"say": "x"}), status=None)
        assert status == 1 and older in err and "7.0 or newer" in err, err
        r.expected |= {1}
        r.stop_daemon()


def test_keys_of_another_version_and_a_policy_that_evicts(new_rig):
    """Both are refused with the words that mend it.
    Fails with: core/state/store.c, store_check: `bool fits = true;`, and check_server: `if (false)`."""
    r = new_rig(start=False, pipelines=ASK)
    r.redis.set("mr:version", "99/4")
    status, _, err = r.cli("submit", "ask", "-i", json.dumps({"say": "x"}), status=None)
    assert status == 1 and "99/4" in err and "redis.prefix" in err, err
    r.start_daemon()
    r.daemon.wait_line("99/4")
    r.expected |= {1}
    r.stop_daemon()
    r.redis.delete("mr:version")
    r.redis.config_set("maxmemory", "1gb")
    r.redis.config_set("maxmemory-policy", "allkeys-lru")
    status, _, err = r.cli("submit", "ask", "-i", json.dumps({"say": "x"}), status=None)
    assert status == 1 and "allkeys-lru" in err and "noeviction" in err, err
    r.start_daemon()
    r.daemon.wait_line("allkeys-lru")
    r.stop_daemon()


def test_the_password_changes(new_rig):
    """Redis's password is changed under way: connections that break cannot come back, log, readyz and submits name the
    login, not the network; with the right one again everything goes on, the running job with what it has.
    Fails with: fcgi/front.c, front_has_store: `problem_store(response, exchange->request.id, OUTAGE_AWAY)`."""
    r = new_rig(start=False, pipelines=ASK, config={"redis": {"password": "one"}, "lease": "5s"})
    r.redis.config_set("requirepass", "one")
    admin = r.redis = redis_library.Redis(unix_socket_path=r.redis_socket, decode_responses=True, password="one")
    assert admin.ping()
    start(r)
    r.until_ready()
    r.sim.rule({"hold": True}, {"contains": "held"}, times=1)
    id = r.submit("ask", {"say": "held"})["id"]
    r.sim.wait(held=1)
    admin.config_set("requirepass", "two")
    admin.execute_command("CLIENT", "KILL", "SKIPME", "yes", "TYPE", "normal")
    admin.execute_command("CLIENT", "KILL", "SKIPME", "yes", "TYPE", "pubsub")
    r.sim.release()
    r.daemon.wait_line("WRONGPASS")
    r.until(lambda: "user or password" in r.get("/readyz").json["checks"]["redis"])
    outage.refused(r, "Redis refuses the login")
    usage = outage.Usage(r)
    outage.let_pass(r, 3)
    usage.assert_calm(lines=60)
    admin.config_set("requirepass", "one")
    r.until_ready()
    assert r.wait_job(id)["status"] == "completed"
    assert len(r.sim.journal()) == 1, "the model was asked again"
