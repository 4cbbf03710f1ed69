"""A whole Millrace on this machine, private to one test: Redis, the model simulator, the daemon, lighttpd.

Rig(...) makes a folder of its own under the temporary directory, writes a configuration and pipelines into it, and
starts the programs of the build in $MILLRACE_BUILD (default: build/ of this tree). Sockets are unix sockets or ports
that the kernel gave. Nothing here sleeps for a time: conditions are awaited through pipes, inotify, long polls, the
simulator's /control/wait and pidfds, each with a bound (PATIENCE).

close() stops everything and then asserts what every test wants to be true: no process is left, no program was killed
by a signal that the test did not send, and the endpoints' API key stands in no log and in no key of Redis.
"""

import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid

import redis as redis_library

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MILLRACE_BUILD", ROOT / "build"))
PATIENCE = float(os.environ.get("MILLRACE_PATIENCE", "30"))
API_KEY = "sk-rig-4b1d5c0ffee0secret"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "millrace.invalid")
ENDED = ("completed", "failed", "cancelled")


def job_id(pipeline, value=None, key=None, namespace=NAMESPACE):
    """The id of a submission, computed without Millrace (docs: eight bytes of length, name, then k + key or i + input)."""
    name = pipeline.encode()
    head = struct.pack(">Q", len(name)) + name
    if key is not None:
        return uuid5_bytes(namespace, head + b"k" + key.encode())
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return uuid5_bytes(namespace, head + b"i" + text.encode())


def uuid5_bytes(namespace, data):
    """uuid5 over bytes: Python before 3.12 takes text alone."""
    import hashlib

    return str(uuid.UUID(bytes=hashlib.sha1(namespace.bytes + data).digest()[:16], version=5))


LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
    """In a child before exec: KILL when the test is killed (PR_SET_PDEATHSIG), so that nothing outlives it."""
    LIBC.prctl(1, signal.SIGKILL)


class Inotify:
    """Waits for a path to appear, by inotify on its folder."""

    IN_CREATE, IN_MOVED_TO = 0x100, 0x80

    @staticmethod
    def until_exists(path, process, patience=PATIENCE):
        fd = LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert fd >= 0, os.strerror(ctypes.get_errno())
        try:
            folder = os.fsencode(os.path.dirname(path))
            flags = Inotify.IN_CREATE | Inotify.IN_MOVED_TO
            assert LIBC.inotify_add_watch(fd, folder, flags) >= 0, os.strerror(ctypes.get_errno())
            limit = time.monotonic() + patience
            while not os.path.exists(path):
                assert process.is_alive(), f"{process.name} ended with {process.process.returncode}:\n{process.tail()}"
                left = limit - time.monotonic()
                assert left > 0, f"{path} did not appear within {patience} s:\n{process.tail()}"
                if select.select([fd], [], [], min(left, 0.5))[0]:
                    os.read(fd, 65536)
        finally:
            os.close(fd)


class Process:
    """A program with its output in a log file that can be awaited line by line."""

    def __init__(self, name, argv, log, env=None, pump=True, cwd=None, **more):
        self.name, self.log = name, log
        self.changed = threading.Condition()
        self.lines = []
        self.is_over = False
        out = subprocess.PIPE if pump else open(log, "ab")
        self.process = subprocess.Popen(
            [str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            env=env, cwd=cwd, start_new_session=True, preexec_fn=die_with_parent, **more
        )
        self.pid = self.process.pid
        self.thread = None
        if pump:
            self.thread = threading.Thread(target=self._pump, daemon=True)
            self.thread.start()
        else:
            out.close()

    def _pump(self):
        with open(self.log, "ab", buffering=0) as log:
            for line in self.process.stdout:
                log.write(line)
                with self.changed:
                    self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                    self.changed.notify_all()
        with self.changed:
            self.is_over = True
            self.changed.notify_all()

    def wait_line(self, pattern, patience=PATIENCE, since=0):
        """The first line from number `since` on that holds the pattern."""
        limit = time.monotonic() + patience
        seen = since
        with self.changed:
            while True:
                for line in self.lines[seen:]:
                    found = re.search(pattern, line)
                    if found:
                        return found
                seen = len(self.lines)
                left = limit - time.monotonic()
                assert not self.is_over and left > 0, (
                    f"{self.name}: no line with {pattern!r} "
                    + ("before it ended" if self.is_over else f"within {patience} s") + f":\n{self.tail()}"
                )
                self.changed.wait(left)

    def is_alive(self):
        return self.process.poll() is None

    def tail(self, count=60):
        try:
            with open(self.log, errors="replace") as file:
                return "".join(file.readlines()[-count:])
        except FileNotFoundError:
            return ""

    def send(self, number):
        self.process.send_signal(number)

    def wait(self, patience=PATIENCE):
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {patience} s:\n{self.tail()}") from None

    def stop(self, number=signal.SIGTERM, patience=PATIENCE):
        """Sends the signal and waits; KILL when that does not help. The exit status."""
        if self.is_alive():
            self.send(number)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
                self.process.wait(PATIENCE)
        if self.thread:
            self.thread.join(patience)
            if self.thread.is_alive():
                return "its output is still held open by a child"
            self.process.stdout.close()
        return self.process.returncode


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def header(self, name, default=None):
        return self.headers.get(name, default)

    def __repr__(self):
        return f"{self.status} {dict(self.headers)} {self.body[:2000]!r}"


class Event:
    def __init__(self, number, kind, data, comments):
        self.number, self.kind, self.data, self.comments = number, kind, data, comments

    def __repr__(self):
        return f"Event({self.number}, {self.kind}, {self.data})"


class Stream:
    """An event stream as a client sees it: iterate over it for events; close() hangs up."""

    def __init__(self, rig, path, headers=None, patience=PATIENCE):
        self.connection = http.client.HTTPConnection("127.0.0.1", rig.port, timeout=patience)
        self.connection.request("GET", path, headers={"Accept": "text/event-stream", **(headers or {})})
        self.reply = self.connection.getresponse()
        self.status, self.headers = self.reply.status, self.reply.headers
        self.retry = None

    def __iter__(self):
        number, kind, data, comments = None, "message", [], []
        while True:
            line = self.reply.readline()
            if not line:
                return
            line = line.decode().rstrip("\r\n")
            if not line:
                if data:
                    yield Event(number, kind, json.loads("\n".join(data)), comments)
                number, kind, data, comments = None, "message", [], []
                continue
            name, _, value = line.partition(":")
            value = value[1:] if value.startswith(" ") else value
            if name == "":
                comments.append(value)
            elif name == "id":
                number = int(value)
            elif name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif name == "retry":
                self.retry = int(value)

    def until(self, kind):
        """Events up to the first of that kind, which is the last of the list."""
        seen = []
        for event in self:
            seen.append(event)
            if event.kind == kind:
                return seen
        raise AssertionError(f"the stream ended without {kind}: {seen}")

    def body(self):
        return self.reply.read()

    def close(self):
        # The reply holds the socket's file: both must go before the peer sees an end.
        self.reply.close()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Sim:
    """The model simulator and its control interface."""

    def __init__(self, folder, options, pump=True):
        log = folder / "log" / "sim.log"
        self.process = Process(
            "mr-sim", [BUILD / "bin" / "mr-sim", "--listen", "127.0.0.1:0", *options], log, env=marked(folder)
        )
        self.port = int(self.process.wait_line(r"listening \S+:(\d+)").group(1))
        self.url = f"http://127.0.0.1:{self.port}"

    def control(self, method, path, body=None, status=200, patience=PATIENCE):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience + 5)
        try:
            connection.request(method, "/control/" + path, json.dumps(body) if body is not None else None)
            reply = connection.getresponse()
            text = reply.read()
            assert reply.status == status, (method, path, reply.status, text)
            return json.loads(text)
        finally:
            connection.close()

    def rule(self, answer, match=None, **more):
        self.control("POST", "rules", [{"match": match or {}, "answer": answer, **more}])

    def wait(self, patience=PATIENCE, **what):
        query = urllib.parse.urlencode({**what, "timeout_ms": int(patience * 1000)})
        return self.control("GET", "wait?" + query, patience=patience)

    def release(self, count=None):
        return self.control("POST", "release" + (f"?count={count}" if count is not None else ""))

    def reset(self):
        return self.control("POST", "reset")

    def stats(self):
        return self.control("GET", "stats")

    def journal(self):
        """Every request since the last reset, oldest first."""
        found, since = [], 0
        while True:
            page = self.control("GET", f"journal?since={since}&limit=1000")
            if not page:
                return found
            found += page
            since = page[-1]["n"]


def marked(folder):
    """The environment of everything a rig starts: leftovers are found by it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MILLRACE")}
    env["RIG_FOLDER"] = str(folder)
    env["LC_ALL"] = "C.UTF-8"
    return env


def merged(base, more):
    """`more` laid over `base`, objects member by member."""
    result = dict(base)
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def children_of(pid):
    """Pid -> argv[0] of the living children of a process."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                title = file.read().split(b"\0")[0].decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and fields[0] != b"Z":
            found[int(entry)] = title
    return found


def cpu_seconds(pid):
    """User and system time a process has used."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid):
    with open(f"/proc/{pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def until_gone(pid, patience=PATIENCE):
    """Waits for the end of a process that need not be a child of ours."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], patience)[0], f"process {pid} did not end within {patience} s"
    finally:
        os.close(fd)


class Rig:
    """See the top of the file.

    workers     child processes
    config      laid over the configuration that is written
    pipelines   {name: document} written beside the shipped ones, which are copied when `shipped`
    sim         options of mr-sim
    appendonly  of Redis: None (no file), "everysec", "always"
    lighttpd    False: requests go by FastCGI alone (fcgi())
    start       False: only Redis and the simulator; start_daemon() later
    redis_launch  words before `redis-server` (a program that execs it)
    pump        False: output of the daemon goes to its file only (benchmarks)
    """

    def __init__(self, workers=1, config=None, pipelines=None, shipped=False, sim=("--latency", "0ms"),
                 appendonly=None, lighttpd=True, start=True, pump=True, env=None, redis_options=(), redis_launch=()):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="mr-rig-"))
        self.pump, self.env, self.appendonly, self.redis_options = pump, env or {}, appendonly, list(redis_options)
        self.redis_launch = list(redis_launch)
        self.has_lighttpd = lighttpd
        for name in ("log", "redis", "www", "pipelines"):
            (self.folder / name).mkdir()
        self.redis_process = self.sim = self.daemon = self.lighttpd = self.listener = None
        self.port = None
        self.killed = set()
        self.expected = {0}
        self.socket = str(self.folder / "m.sock")
        self.redis_socket = str(self.folder / "r.sock")
        try:
            if shipped:
                self.copy_shipped()
            for name, document in (pipelines or {}).items():
                self.write_pipeline(name, document)
            self.start_redis()
            self.sim = Sim(self.folder, sim)
            self.config = merged({
                "listen": f"unix:{self.socket}",
                "redis": {"url": f"unix:{self.redis_socket}"},
                "pipelines": [str(self.folder / "pipelines")],
                "plugins": [str(BUILD / "plugins")],
                "workers": workers,
                "endpoints": {"openai": {"base_url": self.sim.url + "/v1", "api_key": API_KEY}},
                "drain": "5s",
                "limits": {"address_allow": ["127.0.0.0/8"]},
                "log": {"level": "debug", "format": "text"},
            }, config or {})
            self.write_config()
            if start:
                self.start_daemon()
                if lighttpd:
                    self.start_lighttpd()
                self.until_ready()
        except BaseException:
            self.show()
            with contextlib.suppress(Exception):
                self.close(check=False)
            raise

    # ---- files ----

    def copy_shipped(self, backoff="50ms"):
        """The pipelines that ship, with short pauses between attempts."""
        shutil.copytree(ROOT / "pipelines", self.folder / "pipelines", dirs_exist_ok=True)
        for path in (self.folder / "pipelines").glob("*.json"):
            text = path.read_text()
            path.write_text(text.replace('"backoff": "1s"', f'"backoff": "{backoff}"'))

    def write_pipeline(self, name, document):
        document = {"name": name, **document} if isinstance(document, dict) else document
        text = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False, indent=2)
        (self.folder / "pipelines" / f"{name}.json").write_text(text)

    @property
    def config_file(self):
        return str(self.folder / "millrace.json")

    def write_config(self):
        pathlib.Path(self.config_file).write_text(json.dumps(self.config, indent=2))

    # ---- processes ----

    def start_redis(self):
        argv = [*self.redis_launch, "redis-server", "--port", "0", "--unixsocket", self.redis_socket, "--unixsocketperm", "700",
                "--dir", self.folder / "redis", "--save", "", "--daemonize", "no"]
        if self.appendonly:
            argv += ["--appendonly", "yes", "--appendfsync", self.appendonly]
        self.redis_process = Process(
            "redis-server", argv + self.redis_options, self.folder / "log" / "redis.log", env=marked(self.folder)
        )
        self.redis_process.wait_line("Ready to accept connections|ready to accept connections at")
        self.redis = redis_library.Redis(unix_socket_path=self.redis_socket, decode_responses=True)
        assert self.redis.ping()

    def kill_redis(self, number=signal.SIGKILL):
        self.redis_process.stop(number)

    def start_daemon(self, argv=()):
        if os.path.exists(self.socket) and not (self.daemon and self.daemon.is_alive()):
            os.unlink(self.socket)
        self.daemon = Process(
            "millrace-fcgi", [BUILD / "bin" / "millrace-fcgi", "-c", self.config_file, *argv],
            self.folder / "log" / "millrace.log", env={**marked(self.folder), **self.env}, pump=self.pump,
            cwd=self.folder,
        )
        Inotify.until_exists(self.socket, self.daemon)

    def stop_daemon(self, number=signal.SIGTERM, patience=PATIENCE):
        status = self.daemon.stop(number, patience)
        return status

    def start_lighttpd(self):
        """lighttpd with the settings that ship, on a listening socket that is handed to it."""
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1024)
        self.port = self.listener.getsockname()[1]
        shipped = (ROOT / "conf" / "lighttpd" / "millrace.conf").read_text()
        assert "/run/millrace/millrace.sock" in shipped
        conf = self.folder / "lighttpd.conf"
        conf.write_text(
            f'server.document-root = "{self.folder}/www"\nserver.bind = "127.0.0.1"\nserver.port = {self.port}\n'
            f'server.errorlog = "{self.folder}/log/lighttpd-error.log"\nserver.upload-dirs = ("{self.folder}/www")\n'
            'server.systemd-socket-activation = "enable"\n'
            "server.max-fds = 20000\nserver.max-connections = 8000\nserver.listen-backlog = 1024\n"
            + shipped.replace("/run/millrace/millrace.sock", self.socket)
        )
        inherited = self.listener.fileno()
        # The protocol of socket activation: descriptor 3, and the pid of who may take it.
        launch = ("import os, sys; os.dup2(int(sys.argv[1]), 3); "
                  "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])")
        lighttpd = shutil.which("lighttpd") or "/usr/sbin/lighttpd"
        self.lighttpd = Process(
            "lighttpd", [sys.executable, "-S", "-c", launch, inherited, lighttpd, "-D", "-f", conf],
            self.folder / "log" / "lighttpd.log", env=marked(self.folder), pass_fds=[inherited],
        )

    def until_ready(self, patience=PATIENCE):
        """GET /readyz until it says 200; between tries it waits for the daemon's next line."""
        def ready():
            reply = self.http("GET", "/readyz") if self.has_lighttpd else self.fcgi("GET", "/readyz")
            return reply if reply.status == 200 else None

        return self.until(ready, patience)

    def until(self, check, patience=PATIENCE, step=0.05):
        """Asks `check` again whenever a program has written a line, and at least every `step` seconds."""
        limit = time.monotonic() + patience
        while True:
            try:
                found = check()
            except (OSError, http.client.HTTPException, redis_library.RedisError) as error:
                found, why = None, error
            else:
                why = None
            if found:
                return found
            assert self.daemon is None or self.daemon.is_alive(), f"the daemon ended:\n{self.daemon.tail()}"
            assert time.monotonic() < limit, f"not reached within {patience} s ({why})"
            with self.daemon.changed:
                self.daemon.changed.wait(step)

    def children(self, kind=""):
        """Pids of the daemon's children by the beginning of their title after `millrace: `, ordered by title."""
        found = children_of(self.daemon.pid)
        rows = sorted((title, pid) for pid, title in found.items() if title.startswith("millrace: " + kind))
        return [pid for _, pid in rows]

    def workers(self):
        return self.children("worker")

    def front(self):
        pids = self.children("front")
        assert len(pids) == 1, children_of(self.daemon.pid)
        return pids[0]

    def kill(self, pids, number=signal.SIGKILL):
        for pid in [pids] if isinstance(pids, int) else list(pids):
            self.killed.add(pid)
            os.kill(pid, number)

    # ---- talking to it ----

    def http(self, method, path, body=None, headers=None, patience=PATIENCE + 15, chunked=False):
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body, ensure_ascii=False).encode()
            headers.setdefault("Content-Type", "application/json")
        elif isinstance(body, str):
            body = body.encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience)
        try:
            connection.request(method, path, body, headers, encode_chunked=chunked)
            reply = connection.getresponse()
            return Reply(reply.status, reply.headers, reply.read())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.http("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, path, body=None, headers=None):
        return self.http("POST", path, body, headers)

    def curl(self, *args, patience=PATIENCE):
        """The real curl; (exit status, stdout)."""
        done = subprocess.run(
            ["curl", "-sS", "--max-time", str(int(patience)), *map(str, args)], capture_output=True, check=False,
            env=marked(self.folder),
        )
        return done.returncode, done.stdout, done.stderr

    def url(self, path=""):
        return f"http://127.0.0.1:{self.port}{path}"

    def stream(self, path, headers=None, **more):
        return Stream(self, path, headers, **more)

    def fcgi(self, method, uri, body=b"", headers=None, length=None, pieces=None, patience=PATIENCE, params=None):
        """One request straight to the FastCGI socket. `length`: CONTENT_LENGTH as given ("" leaves it out); `pieces`:
        called with the socket and a function that sends a piece of the body, in place of sending `body` whole."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(patience)
            s.connect(self.socket)
            values = {"REQUEST_METHOD": method, "REQUEST_URI": uri, "SCRIPT_NAME": uri.split("?")[0],
                      "QUERY_STRING": uri.partition("?")[2], "SERVER_PROTOCOL": "HTTP/1.1",
                      "GATEWAY_INTERFACE": "CGI/1.1", "REMOTE_ADDR": "127.0.0.1", "SERVER_NAME": "rig"}
            if length is None:
                length = str(len(body)) if body or method in ("POST", "PUT") else ""
            if length != "":
                values["CONTENT_LENGTH"] = length
            if body:
                values["CONTENT_TYPE"] = "application/json"
            for name, value in (headers or {}).items():
                upper = name.upper().replace("-", "_")
                values[upper if upper in ("CONTENT_TYPE",) else "HTTP_" + upper] = value
            values.update(params or {})
            s.sendall(fcgi_record(1, struct.pack(">HB5x", 1, 0)) + fcgi_params(values))
            if pieces:
                pieces(s, lambda data: s.sendall(fcgi_record(5, data)))
            else:
                for at in range(0, len(body), 60000):
                    s.sendall(fcgi_record(5, body[at : at + 60000]))
                s.sendall(fcgi_record(5, b""))
            return fcgi_reply(s)

    def submit(self, pipeline, value, status=202, headers=None, **more):
        reply = self.http("POST", "/api/v1/jobs", {"pipeline": pipeline, "input": value, **more}, headers)
        if status is not None:
            assert reply.status == status, reply
        return reply.json if status is not None else reply

    def job(self, id, status=200):
        reply = self.http("GET", f"/api/v1/jobs/{id}")
        assert reply.status == status, reply
        return reply.json

    def wait_job(self, id, until=ENDED, patience=PATIENCE):
        """The job when its status is one of `until` (or until(job) is true): long polls, each until it has changed."""
        done = until if callable(until) else lambda job: job["status"] in until
        limit = time.monotonic() + patience
        etag, last = None, None
        while True:
            headers = {"Prefer": "wait=5", "If-None-Match": etag} if etag else {}
            try:
                reply = self.http("GET", f"/api/v1/jobs/{id}", headers=headers)
            except (OSError, http.client.HTTPException) as error:
                reply = Reply(0, {}, str(error).encode())
            if reply.status == 200:
                last, etag = reply.json, reply.header("ETag")
                if done(last):
                    return last
            elif reply.status != 304:
                # Redis or the front is away for the moment (a fault test): ask again when something was logged.
                assert reply.status in (0, 500, 502, 503, 504), reply
                with self.daemon.changed:
                    self.daemon.changed.wait(0.1)
            assert time.monotonic() < limit, f"job {id} not there within {patience} s: {json.dumps(last)}"

    def run(self, pipeline, value, patience=PATIENCE, **more):
        """Submits and waits for the end."""
        return self.wait_job(self.submit(pipeline, value, status=None, **more).json["id"], patience=patience)

    def events(self, id, after=None):
        reply = self.http("GET", f"/api/v1/jobs/{id}/events" + (f"?after={after}" if after is not None else ""),
                          headers={"Accept": "application/json"})
        return reply

    def cli(self, *args, stdin=None, status=0, patience=PATIENCE, config=True, env=None, cwd=None):
        """The command line program; its stdout. `status` None: (exit status, stdout, stderr)."""
        argv = [str(BUILD / "bin" / "millrace"), *map(str, args)]
        if config:
            argv += ["-c", self.config_file]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=patience, check=False,
                              env={**marked(self.folder), **(env or {})}, cwd=cwd or self.folder)
        if status is None:
            return done.returncode, done.stdout, done.stderr
        assert done.returncode == status, (argv, done.returncode, done.stdout, done.stderr)
        return done.stdout

    # ---- the end ----

    def redis_text(self):
        """Everything that Redis holds, as one text."""
        parts = []
        for key in self.redis.scan_iter(count=1000):
            parts.append(key)
            kind = self.redis.type(key)
            if kind == "string":
                parts.append(self.redis.get(key) or "")
            elif kind == "hash":
                parts.append(json.dumps(self.redis.hgetall(key), ensure_ascii=False))
            elif kind == "list":
                parts.append(json.dumps(self.redis.lrange(key, 0, -1), ensure_ascii=False))
            elif kind == "zset":
                parts.append(json.dumps(self.redis.zrange(key, 0, -1), ensure_ascii=False))
            elif kind == "set":
                parts.append(json.dumps(sorted(self.redis.smembers(key)), ensure_ascii=False))
            elif kind == "stream":
                parts.append(json.dumps(self.redis.xrange(key), ensure_ascii=False))
        return "\n".join(parts)

    def logs(self):
        return "".join(
            f"--- {path.name}\n{path.read_text(errors='replace')}\n" for path in sorted((self.folder / "log").iterdir())
        )

    def show(self, count=80):
        """Ends of all logs, for a failure."""
        print(self.tails(count))

    def tails(self, count=80):
        parts = []
        for path in sorted((self.folder / "log").iterdir()):
            lines = path.read_text(errors="replace").splitlines()[-count:]
            if lines:
                parts.append(f"--- {path.name}\n" + "\n".join(lines))
        return "\n".join(parts)

    def leftovers(self):
        """Living processes that carry this rig's mark."""
        mark = f"RIG_FOLDER={self.folder}".encode()
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    is_ours = mark in file.read().split(b"\0")
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    title = file.read().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if is_ours:
                found.append((int(entry), title))
        return found

    def close(self, check=True, patience=PATIENCE):
        problems = []
        if check and self.redis_process and self.redis_process.is_alive():
            if API_KEY in self.redis_text():
                problems.append("the endpoint's key stands in Redis")
        if self.lighttpd:
            self.lighttpd.stop()
        if self.listener:
            self.listener.close()
        if self.daemon:
            was_alive = self.daemon.is_alive()
            status = self.daemon.stop(patience=patience)
            if check and was_alive and status not in self.expected:
                problems.append(f"the daemon ended with {status}")
        if self.sim:
            status = self.sim.process.stop()
            if check and status != 0:
                problems.append(f"mr-sim ended with {status}")
        if self.redis_process:
            self.redis_process.stop()
        left = self.leftovers()
        for pid, _ in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if left:
            problems.append(f"processes are left: {left}")
        text = self.logs()
        if API_KEY in text:
            line = next(line for line in text.splitlines() if API_KEY in line)
            problems.append(f"the endpoint's key stands in a log: {line}")
        for sign in ("AddressSanitizer", "LeakSanitizer", "runtime error:", "Segmentation", "was killed by signal", "stack smashing"):
            found = [line for line in text.splitlines() if sign in line]
            if found and not self.killed:
                problems.append(f"{sign}: {found[:3]}")
        if check and problems:
            self.show()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not check or not problems, problems


# ---- FastCGI, from its specification (1.0, section 3.3 and 3.4) ----


def fcgi_record(kind, data):
    return struct.pack(">BBHHBx", 1, kind, 1, len(data), 0) + data


def fcgi_params(values):
    out = b""
    for name, value in values.items():
        for part in (name, value):
            size = len(part.encode())
            out += struct.pack(">B", size) if size < 128 else struct.pack(">I", size | 0x80000000)
        out += name.encode() + value.encode()
    records = b""
    for at in range(0, len(out), 60000):
        records += fcgi_record(4, out[at : at + 60000])
    return records + fcgi_record(4, b"")


def fcgi_reply(s):
    data = b""
    while True:
        piece = s.recv(65536)
        if not piece:
            break
        data += piece
    out, at = b"", 0
    while at + 8 <= len(data):
        _, kind, _, size, padding = struct.unpack_from(">BBHHBx", data, at)
        if kind == 6:
            out += data[at + 8 : at + 8 + size]
        at += 8 + size + padding
    head, _, body = out.partition(b"\r\n\r\n")
    message = http.client.HTTPMessage()
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name:
            message[name] = value.strip()
    status = int(message.get("Status", "200 OK" if out else "0").split()[0])
    return Reply(status, message, body)
