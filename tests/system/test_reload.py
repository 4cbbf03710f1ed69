"""Reload: HUP and USR2 put a checked configuration in place of the running one, without a moment of no service."""

import os
import signal
import subprocess
import threading

import rig as rigs
import samples

TWO = {"drain": "20s"}
LATE = r"""
#include <millrace/plugin.h>
#include <stdlib.h>

__attribute__((destructor)) static void late_end(void)
{
    abort();
}

struct settings {
    const mr_template *output;
};
static const struct mr_option options[] = {
    MR_OPT_TEMPLATE(struct settings, output, "output", "\"{{ .input }}\"", 0, "The output."),
};

static int run(mr_context *cx, const void *settings)
{
    (void)cx;
    (void)settings;
    return MR_OK;
}

MR_PLUGIN(late) = {
    MR_PLUGIN_HEAD("late", struct settings, options),
    .version = "1.0",
    .summary = "Crashes when its process ends.",
    .run = run,
};
"""


def pipeline(word, **more):
    """Two stages: a call of the model, then the word of this revision."""
    return {
        "stages": [
            samples.model("first", "{{ .input.say }}"),
            {"name": "word", "plugin": "transform", "options": {"output": {"word": word}}, **more},
        ],
        "result": {"said": "{{ .first.text }}", "word": "{{ .word.word }}"},
    }


def reload(r, number=signal.SIGHUP, line="reloaded"):
    since = len(r.daemon.lines)
    r.daemon.send(number)
    return r.daemon.wait_line(line, since=since)


def test_pipeline_changed_while_jobs_run(new_rig):
    """A job that began keeps its revision to its end; one that begins after the reload has the new one. Old children end
    when their jobs have.
    Fails with: core/app/supervisor.c, supervisor_settle: `generation_end(sup->generations[1], SIGINT);`"""
    r = new_rig(workers=2, config=TWO, pipelines={"p": pipeline("old")})
    before = set(r.children())
    r.sim.rule({"hold": True}, {"contains": "held"}, times=3)
    held = [r.submit("p", {"say": f"held {i}"})["id"] for i in range(3)]
    r.sim.wait(held=3)
    r.write_pipeline("p", pipeline("new"))
    reload(r)
    fresh = r.run("p", {"say": "after"})
    assert fresh["result"]["word"] == "new"
    r.sim.release()
    for id in held:
        job = r.wait_job(id)
        assert job["status"] == "completed" and job["result"]["word"] == "old", job
    for pid in before:
        rigs.until_gone(pid)
    assert len(r.workers()) == 2 and r.front() not in before
    assert len(r.sim.journal()) == 4, "no call was repeated"


def test_no_request_is_refused_meanwhile(new_rig):
    """Five reloads under load: every submit is answered with 202 and every job completes.
    Fails with: core/app/supervisor.c, supervisor_settle: ending generations[1] before generation_is_ready(new)."""
    r = new_rig(workers=1, config=TWO, pipelines={"say": samples.ECHO})
    stop, answers, ids = threading.Event(), [], []

    def load():
        n = 0
        while not stop.is_set():
            reply = r.post("/api/v1/jobs", {"pipeline": "say", "input": {"n": n}})
            answers.append(reply.status)
            if reply.status in (200, 202):
                ids.append(reply.json["id"])
            n += 1

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for number in (signal.SIGHUP, signal.SIGUSR2) * 2 + (signal.SIGHUP,):
            reload(r, number)
    finally:
        stop.set()
        thread.join()
    assert set(answers) <= {200, 202}, answers
    for id in ids:
        assert r.wait_job(id)["status"] == "completed"


def test_bad_configuration_is_refused(new_rig):
    """What is refused changes nothing, not even for a child that is started again later.
    Fails with: fcgi/programs/millrace_fcgi.c, daemon_child: `daemon_config(self->file, NULL, true)`."""
    r = new_rig(workers=1, config=TWO, pipelines={"p": pipeline("old")})
    children = set(r.children())
    r.write_pipeline("p", pipeline("{{ .nobody.knows | wrong(}}"))
    reload(r, line="reload refused")
    r.write_pipeline("p", pipeline("new"))
    good = open(r.config_file).read()
    with open(r.config_file, "w") as file:
        file.write(good.replace('"workers"', '"wrokers"'))
    reload(r, line="reload refused")
    assert "wrokers" in r.daemon.tail() and "workers" in r.daemon.tail()
    assert set(r.children()) == children
    killed = r.children()
    r.kill(killed)
    for pid in killed:
        rigs.until_gone(pid)
    r.until_ready()
    assert r.run("p", {"say": "hello"})["result"]["word"] == "old"
    with open(r.config_file, "w") as file:
        file.write(good)
    reload(r)
    assert r.run("p", {"say": "hello again"})["result"]["word"] == "new"


def test_no_secret_of_a_check_that_dies_late(new_rig):
    """The check has handed the configuration over, API key included, and then a plugin crashes as its process ends: the
    reload is refused, and the log does not hold what was handed over.
    Fails with: core/app/supervisor.c, supervisor_tell_reasons: without `if (text[0] == '{') return;`"""
    r = new_rig(workers=1, config=TWO, pipelines={"p": pipeline("old")})
    folder = r.folder / "plugins"
    folder.mkdir()
    source = folder / "late.c"
    source.write_text(LATE)
    subprocess.run(["cc", "-std=gnu17", "-shared", "-fPIC", "-fvisibility=hidden", "-I", rigs.ROOT / "core" / "include",
                    "-o", folder / "late.so", source], check=True)
    r.config["plugins"].append(str(folder))
    r.write_config()
    r.write_pipeline("late", {"stages": [{"name": "late", "plugin": "late"}]})
    reload(r, line="reload refused.*a plugin crashes")
    assert rigs.API_KEY not in r.daemon.tail(100000) and "base_url" not in r.daemon.tail(100000)
    assert r.run("p", {"say": "hello"})["result"]["word"] == "old"


def test_children_that_do_not_start(new_rig):
    """A configuration that is good to read and cannot be served (more files than the system gives): the old one stays.
    Fails with: core/app/generation.c, generation_reap: `generation_schedule` for a starting generation too."""
    r = new_rig(workers=1, config=TWO, pipelines={"say": samples.ECHO})
    nr_open = int(open("/proc/sys/fs/nr_open").read())
    children = set(r.children())
    r.config["concurrency"] = min(1000000, nr_open // 2 + 1)
    if r.config["concurrency"] * 2 <= nr_open:  # then by the documents: no room for any
        r.config["redis"]["partitions"] = 2  # the store was made with one
    r.write_config()
    reload(r, line="reload refused")
    assert set(r.children()) >= children
    assert r.run("say", {"n": 1})["status"] == "completed"


def test_number_of_workers(new_rig):
    """More, then fewer; the master's own settings too: the log file.
    Fails with: core/app/generation.c, generation_fill: `int64_t wanted = 1;`"""
    r = new_rig(workers=1, config=TWO, pipelines={"say": samples.ECHO})
    for count in (3, 2):
        old = r.children()
        r.config["workers"] = count
        r.write_config()
        reload(r)
        for pid in old:
            rigs.until_gone(pid)
        assert len(r.workers()) == count
        assert r.run("say", {"n": count})["status"] == "completed"
    r.config["log"]["file"] = str(r.folder / "log" / "other.log")
    r.config["listen"] = f"unix:{r.folder}/elsewhere.sock"
    r.write_config()
    since = len(r.daemon.lines)
    r.daemon.send(signal.SIGHUP)
    r.until(lambda: "reloaded" in open(r.config["log"]["file"]).read() if os.path.exists(r.config["log"]["file"]) else None)
    warned = r.daemon.wait_line("a setting changes at the next start", since=since)
    assert warned and not os.path.exists(f"{r.folder}/elsewhere.sock")
    assert r.run("say", {"n": 9})["status"] == "completed"


def test_stop_during_a_reload(new_rig):
    """TERM while the new children are starting: all end, and what was in hand is handed back.
    Fails with: core/app/supervisor.c, supervisor_stop: `generation_end(sup->generations[0], sig);` alone."""
    r = new_rig(workers=1, config=TWO, pipelines={"p": pipeline("old")})
    r.sim.rule({"hold": True}, {"contains": "held"})
    held = r.submit("p", {"say": "held"})["id"]
    r.sim.wait(held=1)
    r.daemon.send(signal.SIGHUP)
    r.daemon.wait_line("reload: starting new children")
    r.daemon.send(signal.SIGTERM)
    r.sim.release()
    assert r.daemon.wait() == 0
    r.start_daemon()
    r.until_ready()
    assert r.wait_job(held)["result"]["word"] == "old"


def test_streams_go_on(new_rig):
    """A client that follows a job is cut off by the old front and resumes at the new one, without gap or duplicate.
    Fails with: fcgi/front_main.c, drain: `front_end_stays(front);` left out (the stream then holds the old front)."""
    r = new_rig(workers=1, config={"drain": "2m"}, pipelines={"p": pipeline("old")})
    r.sim.rule({"hold": True}, {"contains": "held"}, times=1)
    id = r.submit("p", {"say": "held"})["id"]
    r.sim.wait(held=1)
    seen, front = [], r.front()
    with r.stream(f"/api/v1/jobs/{id}/events") as stream:
        reload(r)
        rigs.until_gone(front)
        seen += [event.number for event in stream if event.number]
    r.sim.release()
    with r.stream(f"/api/v1/jobs/{id}/events", {"Last-Event-ID": str(seen[-1])} if seen else None) as stream:
        seen += [event.number for event in stream if event.number]
    assert seen == list(range(1, len(seen) + 1)) and r.job(id)["status"] == "completed"


def test_the_signal_of_a_reload_to_everybody(new_rig):
    """`systemctl kill -s USR2` and a closed terminal signal every process of the service: children go on, the reload is the
    master's business.
    Fails with: core/loop/stop.c, stop_signals: without SIGUSR2."""
    r = new_rig(workers=2, config=TWO, pipelines={"p": pipeline("old")})
    r.sim.rule({"hold": True}, {"contains": "held"}, times=1)
    held = r.submit("p", {"say": "held"})["id"]
    r.sim.wait(held=1)
    before = r.children()
    for number in (signal.SIGUSR2, signal.SIGHUP):
        for pid in before:
            os.kill(pid, number)
        assert r.run("p", {"say": f"after {number}"})["status"] == "completed"
    assert r.children() == before, r.daemon.tail()
    r.sim.release()
    assert r.wait_job(held)["status"] == "completed"
    assert len([entry for entry in r.sim.journal() if entry["text"] == "held"]) == 1


def test_signals_while_it_starts(new_rig):
    """An operator's script reloads a daemon that still checks its configuration: it starts, and then reloads.
    Fails with: fcgi/programs/millrace_fcgi.c, main: no daemon_hold_signals."""
    many = {"stages": [{"name": f"s{n}", "plugin": "echo"} for n in range(30)]}
    r = new_rig(workers=1, config=TWO, start=False, lighttpd=False, pipelines={f"p{n}": many for n in range(600)})
    r.daemon = rigs.Process("millrace-fcgi", [rigs.BUILD / "bin" / "millrace-fcgi", "-c", r.config_file],
                            r.folder / "log" / "millrace.log", env=rigs.marked(r.folder), cwd=r.folder)
    r.until(lambda: "millrace: check" in rigs.children_of(r.daemon.pid).values(), step=0.001)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        r.daemon.send(number)
    r.daemon.wait_line(" reloaded")
    r.until_ready()


def test_stopped_as_soon_as_there_is_a_socket(new_rig):
    """INT at the moment when the socket appears, from a shell that has it ignored (`daemon &` in a script): it ends, and
    takes the socket with it.
    Fails with: fcgi/programs/millrace_fcgi.c, daemon_master: without `daemon_hold_signals(SIG_BLOCK, true);`"""
    r = new_rig(workers=1, config=TWO, start=False, lighttpd=False, pipelines={"say": samples.ECHO})
    for _ in range(5):
        r.daemon = rigs.Process(
            "millrace-fcgi", ["sh", "-c", "trap '' INT; exec \"$0\" -c \"$1\"", rigs.BUILD / "bin" / "millrace-fcgi", r.config_file],
            r.folder / "log" / "millrace.log", env=rigs.marked(r.folder), cwd=r.folder)
        rigs.Inotify.until_exists(r.socket, r.daemon)
        r.daemon.send(signal.SIGINT)
        assert r.daemon.wait() == 0 and not os.path.exists(r.socket)
