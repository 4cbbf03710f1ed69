"""millrace why, on a running system: what a person asks at night."""

import json
import re
import signal

import pytest

import rig as rigs
import samples

CALL = {
    "stages": [{"name": "calls", "plugin": "reward", "options": {"targets": [
        {"name": "one", "mode": "call", "pipeline": "ask", "timeout": "60s", "input": {"say": "held child of {{ .input.say }}"}}]}}],
    "result": "{{ .calls.one }}",
}
ELSEWHERE = samples.ask(queue="elsewhere")


def why(r, id, status=0):
    return json.loads(r.cli("why", id, "--json", status=status))


def until_why(r, id, reason):
    return r.until(lambda: (lambda found: found if found["reason"] == reason else None)(why(r, id)))


def test_reasons_on_a_running_system(new_rig):
    """Fails with: core/work/worker.c, worker_main: worker_tell_queues is not called."""
    r = new_rig(pipelines={"ask": samples.ask(), "call": CALL, "elsewhere": ELSEWHERE, "paused": samples.ask()},
                config={"concurrency": 4, "queues": ["default"], "lease": "3s", "dead": {"schedule": []}})
    r.sim.rule({"hold": True}, {"contains": "held"})
    r.sim.rule({"status": 400}, {"contains": "broken"})
    assert why(r, rigs.job_id("ask", {"say": "never"}), status=1)["reason"] == "not_found"
    assert "millrace id" in r.cli("why", rigs.job_id("ask", {"say": "never"}), status=1)

    alone = r.submit("elsewhere", {"say": "x"})["id"]
    found = until_why(r, alone, "no_worker")
    assert found["lanes"][0]["detail"]["queue"] == "elsewhere"
    broken = r.run("ask", {"say": "broken"})["id"]
    found = why(r, broken)
    assert found["reason"] == "failed_permanent" and found["detail"]["error"]["code"] == "upstream_status", found
    assert found["detail"]["is_dead_letter"] is True
    later = r.submit("ask", {"say": "x"}, delay="1h")["id"]
    found = why(r, later)
    assert found["reason"] == "due_delayed" and re.match(r"\d{4}-\d\d-\d\dT", found["until"]), found
    r.cli("pause", "paused")
    kept = r.submit("paused", {"say": "x"})["id"]
    until_why(r, kept, "held")

    # A parent that waits, and slots that are all taken by its likes.
    parent = r.submit("call", {"say": "p"})["id"]
    r.sim.wait(held=1)
    found = until_why(r, parent, "calling")
    child = found["lanes"][0]["detail"]["children"][0]
    assert child["reason"] == "running" and child["pipeline"] == "ask", child
    text = r.cli("why", parent)
    assert "it waits for a job that it called (calling)" in text and f"called {child['id']}: a worker runs it" in text, text
    for n in range(3):
        r.submit("ask", {"say": f"held {n}"})
    r.sim.wait(held=4)
    waits = r.submit("ask", {"say": "plain"})["id"]
    found = until_why(r, waits, "queue_full")
    detail = found["lanes"][0]["detail"]
    assert detail["slots"] == 4 and detail["busy"] == 4 and len(detail["workers"]) == 1, detail

    # Stopped: the lease runs out, and nobody is there to take over.
    r.kill(r.workers(), signal.SIGSTOP)
    found = until_why(r, child["id"], "worker_gone")
    assert found["lanes"][0]["stages"] == ["ask"]
    r.kill(r.workers(), signal.SIGCONT)
    r.sim.control("DELETE", "rules")

    def done():
        r.sim.release()
        return why(r, waits)["reason"] == "completed" and why(r, parent)["reason"] == "completed"

    r.until(done)
    assert "it has completed" in r.cli("why", waits)


def test_without_redis(new_rig):
    """Redis away is said, not taken for a job that is not there.
    Fails with: core/app/online.c, online_main: the line that prints err.message left out."""
    r = new_rig(pipelines={"ask": samples.ask()}, lighttpd=False, start=False)
    r.kill_redis(signal.SIGTERM)
    code, out, err = r.cli("why", rigs.job_id("ask", {"say": "x"}), status=None, patience=60)
    assert code == 1 and re.search(r"^millrace: .*Redis", err, re.M) and "not_found" not in out, (out, err)


# ---- the page ----


def rows_of(file, macro):
    text = (rigs.ROOT / "core" / "state" / file).read_text().replace("\\\n", "")
    body = re.search(rf"#define {macro}\(X\)(.*)", text).group(1)
    found = []
    for name, rest in re.findall(r'X\((\w+),\s*((?:"(?:[^"\\]|\\.)*"[\s,]*)+)\)', body):
        args = [""]
        for part, comma in re.findall(r'"((?:[^"\\]|\\.)*)"(\s*,)?', rest):
            args[-1] += part.replace('\\"', '"')
            if comma:
                args.append("")
        found.append((name, [arg for arg in args if arg]))
    return found


@pytest.mark.parametrize("file, macro", [("fsck.h", "FSCK_FINDINGS"), ("fsck.h", "FSCK_NOTES"), ("why.h", "WHY_REASONS")])
def test_operations_page_has_every_word_and_its_sentence(file, macro):
    page = (rigs.ROOT / "docs" / "operations.md").read_text()
    rows = rows_of(file, macro)
    assert len(rows) >= 3
    for name, sentences in rows:
        line = next((line for line in page.splitlines() if line.startswith(f"| `{name}` |")), None)
        assert line, f"docs/operations.md does not have {name}"
        for sentence in sentences:
            assert f"| {sentence} |" in line, (name, sentence, line)
