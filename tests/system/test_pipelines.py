"""The pipelines that ship, whole: through lighttpd, the daemon, Redis, the model simulator and SQLite."""

import json
import sqlite3
import uuid

import rig as rigs

RIG = {"workers": 2, "shipped": True}
WASTE = json.loads((rigs.ROOT / "pipelines" / "waste-sorting.input.json").read_text())


def rows(rig, table):
    with sqlite3.connect(rig.folder / "pipelines" / "millrace.db") as db:
        return db.execute(f"SELECT * FROM {table}").fetchall()


def dns(name):
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def test_waste_sorting_whole(rig, sim):
    """A picture of a bottle (a data: URL): what it is, what to do with it, and the reward's row, once."""
    reply = rig.post("/api/v1/jobs", {"pipeline": "waste-sorting", "input": WASTE}, {"Prefer": "wait=20"})
    assert reply.status == 200, reply
    job = reply.json
    assert job["status"] == "completed", job
    result = job["result"]
    assert result["classification"]["major"] and result["classification"]["middle"]
    assert result["answer"]["user_answer"] and result["answer"]["insufficiencies"] == []
    assert result["reward"]["received"] is True
    character = result["reward"]["character_id"]
    rewards = job["stages"]["reward"]["output"]
    assert rewards["save_ownership"] == dns(f"ownership:{WASTE['user_id']}:{character}")
    assert rewards["save_character"] == dns(f"character:{character}")
    for id in (rewards["save_ownership"], rewards["save_character"]):
        assert rig.wait_job(id)["status"] == "completed"
    assert [r for r in rows(rig, "ownerships") if r[0] == rewards["save_ownership"]] == [
        (rewards["save_ownership"], WASTE["user_id"], character)]
    journal = sim.journal()
    assert [e["images"] for e in journal] == [1, 0], journal
    assert job["usage"]["input_tokens"] > 0 and job["usage"]["output_tokens"] > 0
    # Again: the same job, and nobody is asked.
    again = rig.post("/api/v1/jobs", {"pipeline": "waste-sorting", "input": WASTE})
    assert again.status == 200 and again.json["id"] == job["id"]
    assert sim.stats()["requests"] == 2


def test_ownership_u1_c1_is_pythons_uuid5_and_stands_once(new_rig):
    """Three different parents dispatch the same named child: the id that Python computes, and one row."""
    give = {"stages": [{"name": "give", "plugin": "reward", "options": {"targets": [
        {"name": "save", "mode": "dispatch", "pipeline": "save-ownership",
         "id": "ownership:{{ .input.user_id }}:{{ .input.character_id }}",
         "input": {"user_id": "{{ .input.user_id }}", "character_id": "{{ .input.character_id }}"}}]}}]}
    r = new_rig(shipped=True, pipelines={"give": give}, workers=2)
    expected = dns("ownership:u1:c1")
    for n in range(3):
        job = r.run("give", {"user_id": "u1", "character_id": "c1", "n": n})
        assert job["status"] == "completed", job
        assert job["stages"]["give"]["output"]["save"] == expected
    assert r.wait_job(expected)["status"] == "completed"
    assert rows(r, "ownerships") == [(expected, "u1", "c1")]


def test_no_rule_skips_the_rest(rig, sim):
    value = {"image_url": "https://pictures.example/meteorite.jpg", "user_id": "u2"}
    job = rig.run("waste-sorting", value)
    assert job["status"] == "completed", job
    assert job["result"]["answer"] == {"user_answer": "no rule found", "insufficiencies": ["no rule"]}
    assert job["result"]["reward"] is None
    assert job["stages"]["answer"]["status"] == "skipped" and job["stages"]["reward"]["status"] == "skipped"
    assert sim.stats()["requests"] == 1


def test_design_docs_runs_three_calls_side_by_side(rig, sim):
    sim.rule({"hold": True}, {"contains": "A lending library"})
    id = rig.submit("design-docs", {"idea": "A lending library for tools"})["id"]
    sim.wait(held=3)
    sim.release()
    job = rig.wait_job(id)
    assert job["status"] == "completed", job
    assert [d["title"] for d in job["result"]["documents"]] == ["Requirements", "Architecture", "Risks"]
    assert all(d["text"] for d in job["result"]["documents"])
    assert sim.stats()["requests"] == 3 and sim.stats()["max_in_flight"] >= 3


def test_prompt_by_the_simple_task_api(rig, sim):
    ids = rig.post("/api/tasks", {"prompts": ["What is a mill race?"]}).json["task_ids"]
    rig.wait_job(ids[0])
    task = rig.get(f"/api/tasks/{ids[0]}").json
    assert task == {"status": "completed", "result": "Simulated answer to: What is a mill race?", "error": None, "progress": "100"}


def test_character_match(rig):
    characters = json.loads((rig.folder / "pipelines" / "rules-characters" / "characters.json").read_text())
    label, character = next((k, v) for k, v in characters.items() if not k.startswith("//"))
    job = rig.run("character-match", {"label": label})
    assert job["result"]["received"] is True and job["result"]["character_id"] == character["character_id"], job
    assert rig.run("character-match", {"label": "nobody"})["result"]["received"] is False


def test_save_character_and_ownership_write_one_row(rig):
    for n in range(3):
        job = rig.run("save-ownership", {"user_id": "u9", "character_id": "c9"})
        assert job["status"] == "completed", job
        fresh = rig.submit("save-ownership", {"user_id": "u9", "character_id": "c9"}, fresh=True)
        assert rig.wait_job(fresh["id"])["status"] == "completed"
        saved = rig.run("save-character", {"character_id": "c9", "name": "Nine", "label": "nine"})
        assert saved["status"] == "completed", saved
    assert len([r for r in rows(rig, "ownerships") if r[1:] == ("u9", "c9")]) == 1
    assert len([r for r in rows(rig, "characters") if r[1] == "c9"]) == 1


def test_two_hundred_rewards_at_once_write_each_row_once(rig):
    """Two hundred jobs over forty pairs: forty rows, whoever comes first."""
    ids = [rig.submit("save-ownership", {"user_id": f"m{n % 40}", "character_id": "cm"}, fresh=True)["id"] for n in range(200)]
    assert len(set(ids)) == 200
    for id in ids:
        assert rig.wait_job(id)["status"] == "completed"
    assert len([r for r in rows(rig, "ownerships") if r[2] == "cm"]) == 40
