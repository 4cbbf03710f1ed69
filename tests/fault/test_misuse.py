"""A clumsy operator: files in the way, closed and full descriptors, a Redis that refuses; and a plugin that ends its process."""

import os
import shutil
import socket
import subprocess

import pytest
import rig as rigs
import samples

CLI = rigs.BUILD / "bin" / "millrace"
DAEMON = rigs.BUILD / "bin" / "millrace-fcgi"


def started(r, *args, **more):
    return subprocess.run([DAEMON, *map(str, args)], capture_output=True, text=True, timeout=rigs.PATIENCE, check=False,
                          stdin=subprocess.DEVNULL, env=rigs.marked(r.folder), **more)


def test_what_is_in_the_sockets_place_is_left_alone(new_rig):
    """Fails with: core/app/listener.c, listener_close: unlink() whenever the lock is held."""
    r = new_rig(start=False, pipelines={"echo": samples.ECHO})
    (r.folder / "m.sock").write_text("precious")
    done = started(r, "-c", r.config_file)
    assert done.returncode == 1 and "m.sock exists and is not a socket" in done.stderr, done
    assert (r.folder / "m.sock").read_text() == "precious"
    (r.folder / "m.sock").unlink()

    # A socket that nobody listens on any more is taken over.
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(r.socket)
    r.daemon = rigs.Process("millrace-fcgi", [DAEMON, "-c", r.config_file], r.folder / "log" / "millrace.log",
                            env=rigs.marked(r.folder), cwd=r.folder)
    r.daemon.wait_line("front: ready")
    r.has_lighttpd = False
    r.until_ready()

    # A second daemon is refused, and takes nothing away.
    done = started(r, "-c", r.config_file)
    assert done.returncode == 1 and "already running" in done.stderr, done
    assert r.fcgi("GET", "/readyz").status == 200


def test_closed_descriptors(new_rig):
    """Fails with: core/app/stdio.c, stdio_fill: nothing done (libuv aborts on closing a descriptor below 3)."""
    r = new_rig(start=False, pipelines={"echo": samples.ECHO})
    for closed in (">&-", "2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(["sh", "-c", f'exec "$0" run echo -i {{}} -c "$1" {closed}', CLI, r.config_file],
                              capture_output=True, timeout=rigs.PATIENCE, check=False, env=rigs.marked(r.folder))
        assert done.returncode == 0, (closed, done)
    log = r.folder / "log" / "own.log"
    r.config["log"]["file"] = str(log)
    r.write_config()
    r.has_lighttpd = False
    r.daemon = rigs.Process("millrace-fcgi", ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', DAEMON, r.config_file],
                            r.folder / "log" / "millrace.log", env=rigs.marked(r.folder), cwd=r.folder, pump=False)
    rigs.Inotify.until_exists(r.socket, r.daemon)
    r.until_ready()
    reply = r.fcgi("POST", "/api/v1/jobs", b'{"pipeline":"echo","input":{"n":1}}', {"Prefer": "wait=10"})
    assert reply.status == 200 and reply.json["status"] == "completed", reply
    assert "millrace" not in (r.folder / "log" / "millrace.log").read_text()


def test_a_full_disk_is_told(new_rig):
    """Fails with: core/app/stdio.c, stdio_flush: return true."""
    r = new_rig(start=False, pipelines={"echo": samples.ECHO})
    for args in (["--help"], ["plugins"], ["plugins", "llm"], ["check"], ["check", "--json"], ["run", "echo", "-i", "{}"],
                 ["id", "echo", "-i", "{}"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([CLI, *args, "-c", r.config_file], stdout=full, stderr=subprocess.PIPE, check=False,
                                  timeout=rigs.PATIENCE, env=rigs.marked(r.folder))
        assert done.returncode == 1 and b"writing to stdout failed" in done.stderr, (args, done)


def test_an_input_that_cannot_be_read_is_told(new_rig):
    """Fails with: core/app/cli.c, cli_input: no ferror()."""
    r = new_rig(start=False, pipelines={"echo": samples.ECHO})
    code, out, err = r.cli("run", "echo", "-i", "@" + str(r.folder), status=None)
    assert code == 1 and "cannot be read: Is a directory" in err, (code, out, err)


def test_keys_are_those_of_http(new_rig):
    """Fails with: core/app/cli.c, cli_key: return true."""
    r = new_rig(start=False, pipelines={"echo": samples.ECHO})
    for key in ("", "k" * 256, "line\n", "ключ"):
        for verb in ("submit", "id"):
            code, out, err = r.cli(verb, "echo", "-i", "{}", "--key", key, status=None)
            assert code == 2 and "--key takes 1 to 255" in err, (verb, key, code, out, err)
    assert r.cli("id", "echo", "--key", "k" * 255).strip() == rigs.job_id("echo", key="k" * 255)


def test_the_reason_of_a_refusal_by_redis_is_logged(new_rig):
    """Fails with: fcgi/front.c, front_fail: only status 500 is logged."""
    r = new_rig(pipelines={"echo": samples.ECHO})
    r.redis.config_set("maxmemory", "1mb")
    reply = r.post("/api/v1/jobs", {"pipeline": "echo", "input": {"n": 1}})
    assert reply.status == 503 and reply.header("Retry-After"), reply
    r.daemon.wait_line("OOM command not allowed")
    r.redis.config_set("maxmemory", "0")
    assert r.run("echo", {"n": 1})["status"] == "completed"


@pytest.mark.parametrize("how,cause", [("exit", "exit"), ("bad_offload", "SIGSEGV")])
def test_a_plugin_that_ends_its_process_is_charged(new_rig, how, cause):
    """Fails with: core/app/supervisor.c, supervisor_is_crash: without `sig == 0`; core/loop/watchdog.c, on_fatal: nobody is
    blamed for what a thread does (poison only after twenty restarts)."""
    r = new_rig(start=False, config={"max_crashes": 1}, env={"ASAN_OPTIONS": "handle_segv=0:detect_leaks=0"}, pipelines={
        "ask": samples.ask(), "ends": {"stages": [{"name": "worse", "plugin": "misbehave", "options": {"how": how}}]}})
    folder = r.folder / "plugins"
    folder.mkdir()
    shutil.copy(rigs.BUILD / "tests" / "plugins" / "misbehave.so", folder)
    r.config["plugins"].append(str(folder))
    r.write_config()
    r.start_daemon()
    r.start_lighttpd()
    r.until_ready()
    r.sim.rule({"hold": True}, {"contains": "beside"})
    beside = r.submit("ask", {"say": "beside"})["id"]
    r.sim.wait(held=1)
    job = r.run("ends", {"n": 1})
    assert job["status"] == "failed" and job["error"]["code"] == "poison", job
    assert f"plugin misbehave, {cause}" in job["error"]["message"] and job["error"]["stage"] == "worse", job
    r.sim.control("DELETE", "rules")
    r.sim.release()
    assert r.wait_job(beside)["status"] == "completed"
    assert len([line for line in r.daemon.lines if "child died" in line]) == 2, r.daemon.tail()
    r.killed.add(0)  # the crashes in the log are wanted


def test_too_few_open_files_are_refused_with_the_sum(new_rig):
    """Fails with: fcgi/programs/millrace_fcgi.c, daemon_master: no daemon_files() (children die and are started for ever)."""
    if os.geteuid() == 0:
        limits = ["setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource"]
        if not shutil.which("setpriv"):
            pytest.skip("root may raise the limit, and setpriv is not there")
    else:
        limits = []
    r = new_rig(start=False, pipelines={"echo": samples.ECHO})
    done = subprocess.run(["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *limits, DAEMON, "-c", r.config_file], text=True,
                          capture_output=True, timeout=rigs.PATIENCE, check=False, env=rigs.marked(r.folder))
    assert done.returncode == 1 and "10256 open files, the limit is 64" in done.stderr, done


def test_a_log_at_the_limit_of_its_size_ends_nothing(new_rig):
    """Fails with: fcgi/programs/millrace_fcgi.c, main: SIGXFSZ as it is by default (ends master and children)."""
    r = new_rig(start=False, pipelines={"echo": samples.ECHO})
    log = r.folder / "log" / "own.log"
    r.config["log"]["file"] = str(log)
    r.write_config()
    r.has_lighttpd = False
    log.write_bytes(b"\n" * (1024 * 1024 - 200))
    r.daemon = rigs.Process("millrace-fcgi", ["bash", "-c", 'ulimit -f 1024; exec "$0" -c "$1"', DAEMON, r.config_file],
                            r.folder / "log" / "millrace.log", env=rigs.marked(r.folder), cwd=r.folder)
    rigs.Inotify.until_exists(r.socket, r.daemon)
    r.until_ready()
    reply = r.fcgi("POST", "/api/v1/jobs", b'{"pipeline":"echo","input":{"n":1}}', {"Prefer": "wait=10"})
    assert reply.status == 200 and reply.json["status"] == "completed", reply
    assert log.stat().st_size <= 1024 * 1024


def test_a_pipeline_that_is_a_link_to_nowhere_is_an_error(new_rig):
    """Fails with: core/app/config_folders.c, config_pipeline_file: access() (it would be passed over in silence)."""
    r = new_rig(start=False, pipelines={"echo": samples.ECHO})
    (r.folder / "pipelines" / "lost.json").symlink_to("gone.json")
    code, out, err = r.cli("check", status=None)
    assert code == 1 and "lost.json: cannot be opened: No such file" in out + err, (code, out, err)
