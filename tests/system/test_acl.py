"""The rights that docs/reliability.md asks for are enough: for jobs, for what an operator does, for fsck."""

import re

import rig as rigs
import samples

DOC = (rigs.ROOT / "docs" / "reliability.md").read_text()


def documented():
    """What the sentence about an ACL user names, as rules."""
    sentence = re.search(r"an ACL user needs.*?the commands of `([@a-z ]+)`, (.*?)\.", DOC).groups()
    return ["+" + word for word in sentence[0].split()] + ["+" + name.lower() for name in re.findall("`([A-Z]+)`", sentence[1])]


def test_the_documented_rights_are_enough(new_rig):
    """Fails with: docs/reliability.md, Setting Redis up: without `TIME`."""
    rights = documented()
    assert "+@scripting" in rights and "+role" in rights
    rules = ["--user", "millrace", "on", ">pass", "~mr:*", "&mr:*", *rights]
    r = new_rig(workers=1, redis_options=rules, pipelines={"ask": samples.ask(retry={"attempts": 1}), "echo": samples.ECHO},
                config={"redis": {"user": "millrace", "password": "pass"}, "dead": {"schedule": []}})
    r.sim.rule({"status": 400}, {"contains": "bad"}, times=1)
    assert r.run("echo", {"n": 1})["status"] == "completed"
    id = r.run("ask", {"say": "bad"})["id"]
    assert len(r.get("/api/v1/dead").json["data"]) == 1 and len(r.get("/api/v1/jobs").json["data"]) == 2
    assert "failed" in r.cli("why", id)
    assert r.post("/api/v1/pipelines/echo/pause").status == r.post("/api/v1/pipelines/echo/resume").status == 200
    assert r.post("/api/v1/dead/retry", {"all": True}).json["done"] == 1
    assert r.wait_job(id)["status"] == "completed"
    r.cli("queues")
    r.cli("fsck", "--repair")
    assert r.redis.acl_log() == []
