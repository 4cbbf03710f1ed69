"""What the benchmarks share: the load generator, processor time by process, waiting for the end, and how figures are printed."""

import json
import os
import pathlib
import resource
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

import rig as rigs  # noqa: E402


def raise_files():
    """As many descriptors as this user may have: thousands of connections end in the simulator."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def load(r, pipeline, value, count, first=0, connections=64, direct=False):
    """Submits `count` jobs whose input is `value` with % as the number; what bench-load printed."""
    body = json.dumps({"pipeline": pipeline, "input": value})
    path = r.folder / "body.json"
    path.write_text(body)
    if not (rigs.BUILD / "tests" / "bench-load").exists():
        raise SystemExit(f"{rigs.BUILD} has no load generator: cmake --build --preset release, or name another in $MILLRACE_BUILD")
    where = ["--fcgi", r.socket] if direct else ["--http", f"127.0.0.1:{r.port}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [rigs.BUILD / "tests" / "bench-load", *where, "--body", f"@{path}", "--count", str(count), "--first", str(first),
         "--connections", str(connections)], capture_output=True, text=True, check=False, env=rigs.marked(r.folder))
    if done.returncode != 0:
        raise SystemExit(f"bench-load: {done.stderr}\n{r.tails()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(done.stdout)
    result["cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if set(result["statuses"]) != {"202"}:
        raise SystemExit(f"not all were taken: {result}\n{r.tails(30)}")
    return result


class Cpu:
    """Processor time of every process of a rig between two moments."""

    def __init__(self, r):
        self.pids = {"redis": [r.redis_process.pid], "model simulator": [r.sim.process.pid], "front": r.children("front"),
                     "workers": r.workers(), "master": [r.daemon.pid]}
        if r.lighttpd:
            self.pids["lighttpd"] = [r.lighttpd.pid]
        self.before = self.read()

    def read(self):
        return {name: sum(map(rigs.cpu_seconds, pids)) for name, pids in self.pids.items()}

    def spent(self):
        after = self.read()
        return {name: after[name] - self.before[name] for name in after}


def tick(r, seconds=0.02):
    """A pause that asks Redis nothing but the time: a blocking read of a list that stays empty."""
    r.redis.blpop("bench:nothing", timeout=seconds)


def until_drained(r, limit=300):
    """Until no lane is open: every queue is empty and nothing is due. The moment, by the monotonic clock."""
    import time

    keys = [k for k in r.redis.scan_iter(match="mr:*", count=1000) if ":queue:" in k]
    due = [k for k in r.redis.scan_iter(match="mr:*due", count=1000)]
    end = time.monotonic() + limit
    while True:
        pipe = r.redis.pipeline(transaction=False)
        for key in keys:
            pipe.xlen(key)
        for key in due:
            pipe.zcard(key)
        left = sum(pipe.execute())
        moment = time.monotonic()
        if left == 0:
            return moment
        if moment > end:
            raise SystemExit(f"{left} lanes are still open after {limit} s\n{r.tails()}")
        tick(r)


def ended(r, pipeline_sample):
    """Asserts that sampled jobs completed: figures of jobs that failed would be worth nothing."""
    for value in pipeline_sample:
        job = r.job(value)
        if job["status"] != "completed":
            raise SystemExit(f"a job did not complete: {json.dumps(job)}")


def machine():
    model = "processor unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{os.cpu_count()} x {model}, Linux {os.uname().release}"


def table(title, rows):
    print(f"\n{title}")
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")
    sys.stdout.flush()
