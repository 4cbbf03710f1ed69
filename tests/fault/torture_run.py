"""One torture: rig, clients and faults side by side, then quiet, evidence, verdict."""

import argparse
import collections
import itertools
import json
import pathlib
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import redis as redis_library
import rig as rigs
import torture_check
import torture_evidence
import torture_faults
import torture_jobs

CLIENTS = 2
QUIET_S = 90  # without progress for so long after the faults, what has not ended never will


def arguments(argv):
    parser = argparse.ArgumentParser(prog="torture", description="Random faults under load; proves the delivery promise.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, help="how many are submitted (default 3000, or as many as fit into --seconds)")
    parser.add_argument("--seconds", type=float, help="submit for so long")
    parser.add_argument("--workers", type=int, default=3, help="of the first host (default 3); the second has two")
    parser.add_argument("--one-host", action="store_true", help="without the second host and the proxy before its Redis")
    parser.add_argument("--kill-every", type=float, default=0.7, metavar="S", help="mean time between kills (default 0.7)")
    parser.add_argument("--trouble-every", type=float, default=1.5, metavar="S", help="between other faults (default 1.5)")
    parser.add_argument("--no-redis-faults", action="store_true")
    parser.add_argument("--appendfsync", choices=("always", "no", "everysec"), default="always",
                        help="of Redis. always and no lose nothing that was answered when Redis alone is killed; with everysec "
                             "Redis may answer before it has written (while a fsync takes long), so a loss is no finding")
    parser.add_argument("--window", type=int, default=400, help="most lanes in the queues at a time (default 400)")
    parser.add_argument("--plan", type=float, metavar="SECONDS", help="print the faults of so many seconds and end")
    parser.add_argument("--keep", metavar="FILE", help="keep the evidence in this file")
    parser.add_argument("--verbose", action="store_true", help="say every few seconds how it goes")
    options = parser.parse_args(argv)
    if options.jobs is None:
        options.jobs = 3000 if options.seconds is None else 10**9
    return options


class Torture:
    def __init__(self, options):
        self.options = options
        keep = min(options.jobs, 400_000) * 10 + 100_000
        rules = {"rules": torture_jobs.RULES}
        self.script = tempfile.NamedTemporaryFile("w", suffix=".json", prefix="torture-")
        json.dump(rules, self.script)
        self.script.flush()
        self.rig = rigs.Rig(
            start=False, lighttpd=False, pipelines=torture_jobs.PIPELINES, appendonly=options.appendfsync,
            sim=("--latency", "5ms..40ms", "--script", self.script.name, "--journal-keep", str(keep)),
            redis_options=("--enable-debug-command", "yes", "--auto-aof-rewrite-min-size", "48mb"), config={
                "lease": f"{torture_faults.LEASE_S}s", "drain": "2s", "workers": options.workers,
                "log": {"level": "info", "format": "text"}, "retention": {"status": "7d", "result": "7d"}})
        self.clients, self.hosts, self.proxy, self.faults = [], [], None, None
        self.statuses, self.answered, self.readers = collections.Counter(), [0] * CLIENTS, []
        torture_jobs.prepare(self.rig.folder / "pipelines")

    def start(self):
        rig, options = self.rig, self.options
        self.hosts = [torture_faults.Host(rig, "host-a", rig.config)]
        writer = None
        if not options.one_host:
            path = str(rig.folder / "proxy.sock")
            self.proxy, writer = torture_faults.start_proxy(path, rig.redis_socket)
            config = rigs.merged(rig.config, {"listen": f"unix:{rig.folder}/b.sock", "redis": {"url": f"unix:{path}"}, "workers": 2})
            self.hosts.append(torture_faults.Host(rig, "host-b", config))
        for host in self.hosts:
            host.start()
        rig.daemon = self.hosts[0].process
        rig.start_lighttpd()
        rig.has_lighttpd = True
        rig.until_ready(60)
        plan = torture_faults.plan(options.seed, options.kill_every, options.trouble_every, not options.no_redis_faults)
        self.faults = torture_faults.Faults(rig, self.hosts, plan, writer)
        for first in range(CLIENTS):
            settings = {"seed": options.seed, "port": rig.port, "direct": None if options.one_host else self.hosts[1].socket,
                        "first": first, "stride": CLIENTS, "file": str(rig.folder / f"client-{first}.jsonl"), "patience": 180}
            self.clients.append(subprocess.Popen(
                [sys.executable, str(rigs.ROOT / "tests" / "fault" / "torture"), "--client", json.dumps(settings)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=rigs.die_with_parent))
            self.readers.append(threading.Thread(target=self.read_client, args=(first,)))
            self.readers[-1].start()

    def read_client(self, number):
        for line in self.clients[number].stdout:
            told = json.loads(line)
            if isinstance(told, int):
                self.answered[number] = told
            else:
                self.statuses.update(told)

    def tell(self, line):
        for client in self.clients:
            client.stdin.write(line + "\n")
            client.stdin.flush()

    def say(self, text):
        if self.options.verbose:
            print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)

    # ---- submitting ----

    def backlog(self):
        """Lanes queued or running; None while Redis is away."""
        try:
            with redis_library.Redis(unix_socket_path=self.rig.redis_socket, socket_timeout=2, decode_responses=True) as redis:
                names = [f"mr:{{0}}:queue:{queue}:{kind}" for queue in torture_jobs.QUEUES
                         for kind in ("recovered", "call", "high", "normal", "low")]
                pipe = redis.pipeline(transaction=False)
                for name in names:
                    pipe.xlen(name)
                return sum(pipe.execute())
        except redis_library.RedisError:
            return None

    def submit(self):
        """Lets the clients go on as long as the queues are short."""
        options, allowed, said = self.options, 0, 0
        limit = time.monotonic() + options.seconds if options.seconds else None
        pause = threading.Event()
        while allowed < options.jobs and not (limit and time.monotonic() >= limit) and not self.faults.errors:
            lanes = self.backlog()
            on_the_way = allowed - sum(self.answered)
            if lanes is not None and lanes + on_the_way < options.window:
                allowed = min(options.jobs, allowed + max(10, (options.window - lanes - on_the_way) // 2))
                self.tell(f"allow {allowed}")
            pause.wait(0.05)
            if time.monotonic() - said > 10:
                said = time.monotonic()
                self.say(f"{allowed} allowed, {lanes} lanes, {len(self.faults.done)} faults")
        return allowed

    def until_answered(self):
        """Faults go on until the clients have every answer; what they were told."""
        self.tell("end")
        for client, reader in zip(self.clients, self.readers):
            reader.join()
            assert client.wait(rigs.PATIENCE) == 0
        records = []
        for first in range(CLIENTS):
            with open(self.rig.folder / f"client-{first}.jsonl") as file:
                records += [json.loads(line) for line in file]
        return records

    # ---- quiet ----

    def open_jobs(self, ids):
        found = []
        for batch in torture_evidence.batches(ids, 2000):
            pipe = self.rig.redis.pipeline(transaction=False)
            for id in batch:
                pipe.hget(f"mr:{{0}}:job:{id}", "status")
            found += [id for id, status in zip(batch, pipe.execute()) if status not in rigs.ENDED]
        return found

    def until_ended(self, records):
        """Submitted jobs first, then their children; gives up when nothing ends any more."""
        ids = [record["id"] for record in records if record["id"]]
        seen, changed = len(ids) + 1, time.monotonic()
        pause = threading.Event()
        while True:
            ids = self.open_jobs(ids)
            lanes = self.backlog()
            self.say(f"{len(ids)} open, {lanes} lanes")
            if not ids and lanes == 0 and not self.rig.redis.zcard("mr:{0}:due"):
                return
            if (len(ids), lanes) != seen:
                seen, changed = (len(ids), lanes), time.monotonic()
            if time.monotonic() - changed > QUIET_S:
                return  # the checker says what did not end
            pause.wait(0.25)

    def logs(self):
        return [line for host in self.hosts
                for line in (self.rig.folder / "log" / f"{host.name}.log").read_text(errors="replace").splitlines()]

    def crashes(self):
        """Lines of the daemons' logs that no fault of ours explains."""
        pattern = re.compile(r"killed by SIG(?!KILL|TERM)|ended with status [1-9]|Sanitizer|runtime error:|poison|"
                             r"charged_job=|stack smashing|CROSSSLOT|ERR ")
        return [line for line in self.logs() if pattern.search(line)]

    def fsck(self):
        """What `millrace fsck` says; None where there is no such verb."""
        program = [str(rigs.BUILD / "bin" / "millrace"), "fsck"]
        if subprocess.run([*program, "--help"], capture_output=True, check=False).returncode != 0:
            return None
        done = subprocess.run([*program, "-c", str(self.hosts[0].file)], capture_output=True, text=True, check=False,
                              timeout=600, env=rigs.marked(self.rig.folder))
        return done.returncode, (done.stdout + done.stderr)[-4000:]

    # ---- all ----

    def run(self):
        self.began = time.monotonic()
        self.start()
        self.faults.start()
        allowed = self.submit()
        if self.faults.errors:
            print(self.rig.tails(30))
            raise AssertionError(self.faults.errors)
        self.say(f"{allowed} allowed, no further ones")
        records = self.until_answered()
        took = time.monotonic() - self.faults.began
        self.faults.stop()
        self.say("faults are over")
        self.until_ended(records)
        for host in self.hosts:
            host.end()
        statuses = [f"{host.name}: {status}" for host in self.hosts for status in host.statuses if status != 0]
        self.say("gathering")
        evidence = torture_evidence.gather(self.rig, self.options.seed, records, self.faults.done)
        self.say(f"checking {len(evidence['jobs'])} jobs, {len(evidence['calls'])} calls")
        if self.options.keep:
            pathlib.Path(self.options.keep).write_bytes(pickle.dumps(evidence))
        checker = torture_check.check(evidence)
        for line in self.crashes():
            checker.wrong("wrong", "log", line)
        for line in statuses:
            checker.wrong("wrong", "daemon", f"ended with a status of its own: {line}")
        if self.statuses["500 of Millrace"]:
            checker.wrong("wrong", "HTTP", f"{self.statuses['500 of Millrace']} answers 500 of Millrace itself")
        for error in self.faults.errors:
            checker.wrong("wrong", "harness", error)
        clean = self.fsck()
        if clean and clean[0] != 0:
            checker.wrong("wrong", "fsck", clean[1])
        return self.report(checker, allowed, took, evidence, clean)

    def report(self, checker, allowed, took, evidence, clean):
        kinds = collections.Counter(fault["kind"] for fault in self.faults.done)
        counts = checker.counts
        print(f"faults: {', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items()))}")
        print(f"answers to the clients: {', '.join(f'{s}: {c}' for s, c in sorted(self.statuses.items()))}")
        print(f"children={counts['children']} calls={counts['calls']} planned_failures={counts['planned_failures']} "
              f"repeated_rows={counts['repeated_rows']} late_calls={counts['late_calls']} "
              f"fsck={'not there' if clean is None else 'clean' if clean[0] == 0 else 'findings'}")
        if checker.found:
            folder = pathlib.Path(tempfile.mkdtemp(prefix=f"torture-{self.options.seed}-"))
            shutil.copytree(self.rig.folder / "log", folder / "log")
            (folder / "evidence").write_bytes(pickle.dumps(evidence))
            (folder / "account").write_text(checker.account(most=50))
            print(checker.account())
            print(f"kept: {folder}")
        kills = sum(count for kind, count in kinds.items() if kind.startswith("kill"))
        print(f"torture: seed={self.options.seed} jobs={allowed} completed={counts['completed']} cancelled={counts['cancelled']} "
              f"failed={counts['failed']} kills={kills} faults={sum(kinds.values())} seconds={took:.0f} {checker.figures()}",
              flush=True)
        return 1 if checker.found else 0

    def close(self):
        if self.faults and self.faults.thread.is_alive():
            self.faults.stop()
        for process in [*self.clients, *([self.proxy] if self.proxy else [])]:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.rig.daemon = None
        for host in self.hosts:
            if host.process:
                host.process.stop()
        self.rig.close(check=False)
        self.script.close()


def main(argv=None):
    options = arguments(argv)
    if options.plan:
        plan = torture_faults.plan(options.seed, options.kill_every, options.trouble_every, not options.no_redis_faults)
        for fault in itertools.takewhile(lambda fault: fault["at"] < options.plan, plan):
            print(f"{fault['at']:9.3f}  {fault['kind']:14} dice {fault['dice']:.6f}" + (f"  for {fault['for']} s" if fault["for"] else ""))
        return 0
    torture = Torture(options)
    try:
        return torture.run()
    finally:
        torture.close()
