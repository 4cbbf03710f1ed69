"""The command line program: check, run, plugins, id, submit, status, watch."""

import json
import shutil
import subprocess

import pytest
import rig as rigs
import samples

RIG = {"workers": 1, "shipped": True, "pipelines": {"ask": samples.ask(), "echo": samples.ECHO}}


def test_help_and_usage(rig):
    code, out, err = rig.cli("--help", status=None, config=False)
    assert code == 0 and "check" in out and "submit" in out
    for verb in ("check", "run", "plugins", "id", "submit", "status", "watch"):
        assert verb in out
        code, text, _ = rig.cli(verb, "--help", status=None, config=False)
        assert code == 0 and verb in text, (verb, code, text)
    assert rig.cli("frobnicate", status=None, config=False)[0] == 2
    assert rig.cli(status=None, config=False)[0] == 2
    assert rig.cli("run", status=None)[0] == 2


def test_check_of_what_ships(rig):
    code, out, err = rig.cli("check", status=None)
    assert code == 0, (out, err)


def test_check_reports_everything_at_once_with_places_and_hints(rig):
    broken = {
        "name": "broken",
        "stages": [
            {"name": "a", "plugin": "lml", "options": {}},
            {"name": "b", "plugin": "llm", "timout": "5s",
             "options": {"endpoint": "opnai", "modle": "x", "messages": [{"role": "user", "content": "{{ .input.x"}]}},
            {"name": "c", "plugin": "echo", "needs": ["nobody"]},
            {"name": "d", "plugin": "reward", "options": {"targets": [{"name": "t", "mode": "call", "pipeline": "nowhere"}]}},
            {"name": "c", "plugin": "echo", "when": ".a |"},
        ],
    }
    path = rig.folder / "broken.json"
    path.write_text(json.dumps(broken))
    code, out, err = rig.cli("check", path, status=None)
    text = out + err
    assert code == 1, text
    for pointer in ("/stages/0/plugin", "/stages/1/timout", "/stages/1/options/modle", "/stages/1/options/endpoint", "/stages/2/needs",
                    "/stages/3/options/targets/0/pipeline", "/stages/4/when", "/stages/4/name"):
        assert pointer in text, (pointer, text)
    for hint in ('did you mean "llm"', 'did you mean "timeout"', 'did you mean "model"', "nowhere.json"):
        assert hint in text, (hint, text)
    assert "broken.json" in text


def test_check_of_syntax_names_line_and_column(rig):
    path = rig.folder / "syntax.json"
    path.write_text('{\n  "name": "syntax",\n  "stages": [,]\n}\n')
    code, out, err = rig.cli("check", path, status=None)
    assert code == 1 and "3" in out + err and "syntax.json" in out + err, (out, err)


def test_check_of_a_broken_configuration(rig):
    path = rig.folder / "bad.json"
    path.write_text(json.dumps({"lisen": "unix:/x", "lease": 5, "limits": {"body_mx": "1MiB", "json_depth": "deep"}}))
    code, out, err = rig.cli("check", "-c", path, status=None, config=False)
    text = out + err
    assert code == 1, text
    for pointer in ("/lisen", "/lease", "/limits/body_mx", "/limits/json_depth"):
        assert pointer in text, (pointer, text)
    assert "listen" in text and "body_max" in text
    daemon = subprocess.run([rigs.BUILD / "bin" / "millrace-fcgi", "-c", path], capture_output=True, text=True, check=False,
                            timeout=rigs.PATIENCE, env=rigs.marked(rig.folder))
    assert daemon.returncode != 0 and "/lisen" in daemon.stderr + daemon.stdout, daemon


def test_circle_in_needs(rig):
    path = rig.folder / "circle.json"
    path.write_text(json.dumps({"name": "circle", "stages": [
        {"name": "a", "plugin": "echo", "needs": ["b"]}, {"name": "b", "plugin": "echo", "needs": ["a"]}]}))
    code, out, err = rig.cli("check", path, status=None)
    assert code == 1 and "/needs" in out + err, (out, err)


def test_run_prints_the_result(rig, sim):
    out = rig.cli("run", "echo", "-i", '{"a": [1, 2]}')
    assert json.loads(out) == {"a": [1, 2]}
    out = rig.cli("run", rig.folder / "pipelines" / "ask.json", "-i", "-", stdin='{"say": "by hand"}')
    assert json.loads(out) == "Simulated answer to: by hand"
    path = rig.folder / "in.json"
    path.write_text('{"say": "from a file"}')
    assert json.loads(rig.cli("run", "ask", "-i", f"@{path}")) == "Simulated answer to: from a file"


def test_run_fails_with_one(rig, sim):
    sim.rule({"status": 400, "message": "not today"}, {"contains": "fail by hand"})
    code, out, err = rig.cli("run", "ask", "-i", '{"say": "fail by hand"}', status=None)
    assert code == 1 and "not today" in out + err, (code, out, err)
    assert rig.cli("run", "ask", "-i", "{", status=None)[0] != 0
    assert rig.cli("run", "nobody", "-i", "{}", status=None)[0] != 0


def test_run_of_waste_sorting_with_its_children(rig, sim):
    value = rigs.ROOT / "pipelines" / "waste-sorting.input.json"
    out = json.loads(rig.cli("run", "waste-sorting", "-i", f"@{value}"))
    assert out["classification"]["major"] and out["reward"]["received"] is True, out


@pytest.mark.parametrize("how,signal", [("segv", "SIGSEGV"), ("overflow", "SIGSEGV"), ("bad_offload", "SIGSEGV"), ("abort", "SIGABRT")])
def test_run_names_the_plugin_that_crashes(new_rig, how, signal):
    """Fails with: core/app/cli_run.c without cli_crash_start (overflow: core/app/cli_crash.c without sigaltstack)."""
    r = new_rig(start=False, pipelines={"ends": {"stages": [{"name": "worse", "plugin": "misbehave", "options": {"how": how}}]}})
    folder = r.folder / "plugins"
    folder.mkdir()
    shutil.copy(rigs.BUILD / "tests" / "plugins" / "misbehave.so", folder)
    r.config["plugins"].append(str(folder))
    r.write_config()
    code, out, err = r.cli("run", "ends", "-i", "{}", status=None, env={"ASAN_OPTIONS": "handle_segv=0:handle_abort=0:detect_leaks=0"})
    assert code < 0 and f"{signal} in plugin misbehave, stage worse" in err, (code, out, err)


def test_plugins(rig):
    out = rig.cli("plugins")
    for name in ("echo", "llm", "reward", "rule", "sleep", "sql", "transform"):
        assert name in out, out
    one = rig.cli("plugins", "llm")
    for option in ("endpoint", "model", "messages", "response"):
        assert option in one, one
    code, out, err = rig.cli("plugins", "lml", status=None)
    assert code != 0 and "llm" in out + err
    assert json.loads(rig.cli("plugins", "--json"))


def test_id_is_what_python_computes(rig):
    for value in ({}, {"b": 1, "a": [True, None, 1.5, "é\"\\\n"]}, {"n": 12345678901234567}, {"ключ": "значение", "z": {"y": {}}}):
        assert rig.cli("id", "echo", "-i", json.dumps(value)).strip() == rigs.job_id("echo", value)
    assert rig.cli("id", "echo", "-i", "{}", "--key", "order-1").strip() == rigs.job_id("echo", key="order-1")


def test_submit_status_watch(rig, sim):
    sim.rule({"hold": True}, {"contains": "from the shell"})
    out = rig.cli("submit", "ask", "-i", '{"say": "from the shell"}')
    id = rigs.job_id("ask", {"say": "from the shell"})
    assert out == id + "\n"
    sim.wait(held=1)
    assert "processing" in rig.cli("status", id)
    watch = subprocess.Popen([rigs.BUILD / "bin" / "millrace", "watch", id, "-c", rig.config_file], stdout=subprocess.PIPE, text=True,
                             env=rigs.marked(rig.folder))
    sim.release()
    text = watch.communicate(timeout=rigs.PATIENCE)[0]
    assert watch.returncode == 0 and "ask" in text, text
    job = json.loads(rig.cli("status", id, "--json"))
    assert job["id"] == id and job["status"] == "completed", job
    assert rig.job(id)["status"] == "completed"
    code, _, err = rig.cli("status", "00000000-0000-5000-8000-000000000000", status=None)
    assert code == 1, err


def test_submit_without_redis_fails_with_a_sentence(new_rig):
    r = new_rig(start=False, pipelines={"echo": samples.ECHO})
    r.kill_redis()
    code, out, err = r.cli("submit", "echo", "-i", "{}", status=None)
    assert code == 1 and "redis" in (out + err).lower(), (code, out, err)
