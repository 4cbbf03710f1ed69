"""Faults from a seed: when, which kind, and how long; and the hands that do them.

Two rows of faults run side by side: kills (of workers, fronts and masters), and troubles (processes stopped past their
lease, daemons ended and started, Redis killed, stopped, slow, without its scripts, connections cut). plan() alone decides
what comes when, from the seed; the hands add which process it met and when it was over. A fault that would meet one
that is still at work on the same thing waits for it.
"""

import concurrent.futures
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import redis as redis_library
import rig as rigs

LEASE_S = 2.0
# Whoever starts a program must live as long as it (rig.die_with_parent asks the kernel for the end of the *thread*), so
# threads of faults, which do not, have these start theirs.
STARTERS = concurrent.futures.ThreadPoolExecutor(4)
# kind: share. Of kills; of troubles without Redis; of troubles of Redis.
KILLS = {"kill worker": 84, "kill front": 10, "kill master": 6}
TROUBLES = {"stop worker": 56, "stop front": 12, "end daemon": 12, "reload": 8}
REDIS_TROUBLES = {"cut reply": 50, "cut request": 20, "drop clients": 14, "drop listeners": 8, "flush scripts": 14, "pause": 14,
                  "hold redis": 8, "stop redis": 8, "kill redis": 14}


def plan(seed, kill_every, trouble_every, with_redis):
    """Faults in order of time, without end: {"at": s, "kind", "dice": 0..1, "for": s}."""
    dice = random.Random(f"{seed}/faults")
    troubles = {**TROUBLES, **(REDIS_TROUBLES if with_redis else {})}
    rows = [[kill_every, KILLS, 0.0], [trouble_every, troubles, 0.0]]
    for row in rows:
        row[2] = dice.uniform(0.5, 1.5) * row[0]
    while True:
        row = min(rows, key=lambda each: each[2])
        kind = dice.choices(list(row[1]), list(row[1].values()))[0]
        length = {"stop worker": dice.choice((0.5, 1, 1, 1)) * dice.uniform(1, 1.6) * LEASE_S, "stop front": dice.uniform(0.2, 2),
                  "stop redis": dice.choice((0.3, LEASE_S * 1.5)), "pause": dice.uniform(0.1, 1.5), "hold redis": dice.uniform(0.1, 1)}
        yield {"at": round(row[2], 3), "kind": kind, "dice": round(dice.random(), 6), "for": round(length.get(kind, 0), 3)}
        row[2] += dice.uniform(0.5, 1.5) * row[0]


class Host:
    """A daemon with its configuration; `name` is that of its files."""

    def __init__(self, rig, name, config):
        self.rig, self.name = rig, name
        self.socket = config["listen"].removeprefix("unix:")
        self.file = rig.folder / f"{name}.json"
        self.file.write_text(json.dumps(config, indent=2))
        self.busy = threading.RLock()
        self.process = None
        self.killed = {}  # pid: when
        self.statuses = []

    def start(self):
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        self.process = rigs.Process(self.name, [rigs.BUILD / "bin" / "millrace-fcgi", "-c", self.file],
                                    self.rig.folder / "log" / f"{self.name}.log", env=rigs.marked(self.rig.folder), pump=False,
                                    cwd=self.rig.folder)
        rigs.Inotify.until_exists(self.socket, self.process, patience=60)

    def end(self, number=signal.SIGTERM):
        self.process.send(number)
        status = self.process.wait(60)
        self.statuses.append(status)

    def children(self, kind):
        """Those that were not killed yet, the ones that were never met first; oldest first."""
        found = rigs.children_of(self.process.pid)
        rows = sorted((pid, title) for pid, title in found.items() if title.startswith(f"millrace: {kind}"))
        return [(pid, title.removeprefix("millrace: ")) for pid, title in rows if pid not in self.killed]


class Faults:
    """Runs a plan. `rig`: Redis and simulator; `proxy`: standard input of the proxy, or None."""

    def __init__(self, rig, hosts, plan, proxy):
        self.rig, self.hosts, self.plan, self.proxy = rig, hosts, plan, proxy
        self.done = []  # {"kind", "at", "end" (ms, wall clock), "what", "planned"}
        self.errors = []
        self.over = threading.Event()
        self.redis_busy = threading.Lock()
        self.lock = threading.Lock()
        self.met = {}  # (host, title): when its last process was killed
        self.threads = []
        self.thread = threading.Thread(target=self.run)

    def start(self):
        self.began = time.monotonic()
        self.thread.start()

    def stop(self):
        """No further ones; waits until those at work are over."""
        self.over.set()
        self.thread.join()
        for thread in self.threads:
            thread.join()

    def run(self):
        for fault in self.plan:
            if self.over.wait(max(0.0, self.began + fault["at"] - time.monotonic())):
                return
            thread = threading.Thread(target=self.act, args=(fault,))
            self.threads = [each for each in self.threads if each.is_alive()] + [thread]
            thread.start()

    def act(self, fault):
        name = fault["kind"].replace(" ", "_")
        try:
            getattr(self, name)(fault)
        except BaseException as error:  # noqa: BLE001 - told at the end: a harness at fault proves nothing
            self.errors.append(f"{fault}: {type(error).__name__}: {error}")

    def note(self, fault, began, what, beyond=0.0):
        with self.lock:
            self.done.append({"kind": fault["kind"], "at": int(began * 1000), "end": int((time.time() + beyond) * 1000),
                              "what": what, "planned": fault["at"]})

    def choose(self, fault, kind):
        """(host, pid, title) of a child; the one whose place was met longest ago among three that the dice name."""
        rows = []
        for host in self.hosts:
            if not host.busy.acquire(blocking=False):
                continue  # its daemon is being ended or started
            try:
                if host.process.is_alive():
                    rows += [(host, pid, title) for pid, title in host.children(kind)]
            finally:
                host.busy.release()
        if not rows:
            return None
        first = int(fault["dice"] * len(rows))
        near = [rows[(first + i) % len(rows)] for i in range(min(3, len(rows)))]
        return min(near, key=lambda row: self.met.get((row[0].name, row[2]), 0))

    def kill(self, host, pid, number):
        try:
            os.kill(pid, number)
            return True
        except ProcessLookupError:
            return False

    # ---- kills ----

    def kill_child(self, fault, kind):
        chosen = self.choose(fault, kind)
        if not chosen:
            return
        host, pid, title = chosen
        host.killed[pid] = time.time()
        self.met[(host.name, title)] = time.time()
        began = time.time()
        if self.kill(host, pid, signal.SIGKILL):
            self.note(fault, began, f"{host.name} {title} {pid}")

    def kill_worker(self, fault):
        self.kill_child(fault, "worker")

    def kill_front(self, fault):
        self.kill_child(fault, "front")

    def host(self, fault):
        return self.hosts[int(fault["dice"] * len(self.hosts))]

    def kill_master(self, fault):
        host = self.host(fault)
        with host.busy:
            began = time.time()
            host.process.send(signal.SIGKILL)
            host.process.wait()
            STARTERS.submit(host.start).result()
            self.note(fault, began, host.name)

    # ---- processes that stand still, daemons that end ----

    def stop_child(self, fault, kind):
        chosen = self.choose(fault, kind)
        if not chosen:
            return
        host, pid, title = chosen
        host.killed[pid] = time.time()  # left alone while it stands still
        began = time.time()
        if self.kill(host, pid, signal.SIGSTOP):
            threading.Event().wait(fault["for"])
            self.kill(host, pid, signal.SIGCONT)
            self.note(fault, began, f"{host.name} {title} {pid} for {fault['for']} s")
        del host.killed[pid]

    def stop_worker(self, fault):
        self.stop_child(fault, "worker")

    def stop_front(self, fault):
        self.stop_child(fault, "front")

    def end_daemon(self, fault):
        host = self.host(fault)
        with host.busy:
            began = time.time()
            host.end(signal.SIGTERM if fault["dice"] * 7 % 1 < 0.7 else signal.SIGINT)
            STARTERS.submit(host.start).result()
            self.note(fault, began, host.name)

    def reload(self, fault):
        host = self.host(fault)
        with host.busy:
            began = time.time()
            if host.process.is_alive():
                host.process.send(signal.SIGHUP)
                self.note(fault, began, host.name)

    # ---- Redis ----

    def command(self, fault, *words, beyond=0.0):
        with self.redis_busy:
            began = time.time()
            try:
                with redis_library.Redis(unix_socket_path=self.rig.redis_socket, socket_timeout=30) as redis:
                    redis.execute_command(*words)
            except redis_library.RedisError as error:
                if "closed" not in str(error).lower():
                    raise
            self.note(fault, began, " ".join(map(str, words)), beyond)

    def cut(self, fault, way, most):
        began = time.time()
        if self.proxy:
            self.proxy.write(f"cut {way} {int(fault['dice'] * most) + 1}\n")
            self.proxy.flush()
            self.note(fault, began, f"{way} after {int(fault['dice'] * most) + 1} bytes")

    def cut_reply(self, fault):
        self.cut(fault, "down", 1500)

    def cut_request(self, fault):
        self.cut(fault, "up", 1500)

    def drop_clients(self, fault):
        self.command(fault, "CLIENT", "KILL", "TYPE", "normal")

    def drop_listeners(self, fault):
        self.command(fault, "CLIENT", "KILL", "TYPE", "pubsub")

    def flush_scripts(self, fault):
        self.command(fault, "SCRIPT", "FLUSH")

    def pause(self, fault):
        self.command(fault, "CLIENT", "PAUSE", int(fault["for"] * 1000), "ALL" if fault["dice"] < 0.5 else "WRITE",
                     beyond=fault["for"])

    def hold_redis(self, fault):
        self.command(fault, "DEBUG", "SLEEP", fault["for"])

    def stop_redis(self, fault):
        with self.redis_busy:
            began = time.time()
            self.rig.redis_process.send(signal.SIGSTOP)
            threading.Event().wait(fault["for"])
            self.rig.redis_process.send(signal.SIGCONT)
            self.note(fault, began, f"for {fault['for']} s")

    def kill_redis(self, fault):
        with self.redis_busy:
            began = time.time()
            self.rig.kill_redis()
            STARTERS.submit(self.rig.start_redis).result()
            self.note(fault, began, "with its file")


def start_proxy(listen, target):
    """(process, its standard input)"""
    process = subprocess.Popen([sys.executable, str(rigs.ROOT / "tests" / "fault" / "torture"), "--proxy", listen, target],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=rigs.die_with_parent)
    assert process.stdout.readline() == "ready\n"
    return process, process.stdin
