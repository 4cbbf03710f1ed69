"""The endpoint's key is sent to the model and stands nowhere else: logs, errors, answers, events, Redis, descriptions.

rig.Rig.close() searches logs and Redis after every other test as well.
"""

import rig as rigs
import samples

KEY = rigs.API_KEY
RIG = {"pipelines": {"ask": samples.ask(), "once": samples.ask(retry={"attempts": 1})}, "shipped": True}


def test_the_key_is_sent(rig, sim):
    sim.rule({"text": "let in"}, {"contains": "who goes", "header": {"Authorization": f"Bearer {KEY}"}})
    assert rig.run("ask", {"say": "who goes"})["result"] == "let in"


def test_the_key_stays_secret_whatever_goes_wrong(rig, sim):
    texts = []
    for n, answer in enumerate([
        {"status": 401, "message": f"Incorrect API key provided: {KEY}."},
        {"status": 500, "message": f"key {KEY} crashed us"},
        {"status": 400, "body": f"<html>Authorization: Bearer {KEY}</html>"},
        {"text": f"your key is {KEY}", "status": 403},
        {"broken_json": True}, {"reset": True}, {"truncate": 10},
    ]):
        say = f"secret {n}"
        sim.rule(answer, {"contains": say})
        job = rig.run("once", {"say": say})
        assert job["status"] == "failed", (answer, job)
        texts.append(rig.get(f"/api/v1/jobs/{job['id']}").body.decode())
        texts.append(rig.get(f"/api/v1/jobs/{job['id']}/result").body.decode())
        texts.append(rig.events(job["id"]).body.decode())
        texts.append(rig.get(f"/api/tasks/{job['id']}").body.decode())
    for path in ("/readyz", "/version", "/healthz"):
        texts.append(rig.get(path).body.decode())
    for args in (("check",), ("check", "--json"), ("plugins", "llm")):
        code, out, err = rig.cli(*args, status=None)
        texts += [out, err]
    assert not [t for t in texts if KEY in t]
    assert KEY not in rig.redis_text()
    assert KEY not in rig.logs()


def test_the_key_is_in_no_command_line_or_error_of_a_bad_configuration(new_rig):
    r = new_rig(start=False)
    r.config["endpoints"]["openai"]["api_kee"] = KEY
    r.config["endpoints"]["openai"]["base_url"] = 7
    r.write_config()
    code, out, err = r.cli("check", status=None)
    assert code == 1 and KEY not in out + err, (out, err)
