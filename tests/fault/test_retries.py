"""What happens to an attempt that fails, by its class: when it is made again, what it costs, and where it ends; delays and
deadlines, all by Redis's clock."""

import datetime
import subprocess

import pytest

import ledger
import rig as rigs
import samples

PLUGINS = [str(rigs.BUILD / "plugins"), str(rigs.BUILD / "tests" / "plugins")]
# The host's clock is wrong by an hour, either way ($SKEW_S): what a program asks the kernel for is shifted.
SKEW = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long skew(void)
{
    const char *text = getenv("SKEW_S");
    return text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *ts)
{
    int rc = (int)syscall(SYS_clock_gettime, clock, ts);
    if (rc == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        ts->tv_sec += skew();
    return rc;
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    struct timespec ts;
    (void)tz;
    clock_gettime(CLOCK_REALTIME, &ts);
    *tv = (struct timeval){ts.tv_sec, ts.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *ret)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (ret)
        *ret = ts.tv_sec;
    return ts.tv_sec;
}
"""


def ms(text):
    """An RFC 3339 time of the API in ms."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000


def events(r, id, kind):
    return [e["data"] for e in r.events(id).json["data"] if e["event"] == kind]


def due(r):
    return r.redis.zrange("mr:{0}:due", 0, -1)


def assert_over(r, job):
    """It failed for good: nothing of it is due, and nobody runs it again."""
    assert job["status"] == "failed" and "next_retry_at" not in job, job
    assert not [member for member in due(r) if job["id"] in member], due(r)


def asked_at(sim, text):
    return [e["at"] for e in sim.journal() if e["text"] == text]


# ---- Retry ----


def test_backoff_has_full_jitter_within_its_bounds(new_rig):
    """Each pause lies anywhere between nothing and min(max, base * 2^n), and is kept.
    Fails with: core/work/work_ops.c, work_backoff: `return bound;`, and: `bound *= 4;`"""
    r = new_rig(pipelines={"ask": samples.ask(retry={"attempts": 5, "backoff": "100ms", "max_backoff": "300ms"})},
                config={"dead": {"breaker": 1000}})
    r.sim.rule({"status": 500})
    ids = [r.submit("ask", {"say": f"fail {i}"})["id"] for i in range(30)]
    shares = []
    for i, id in enumerate(ids):
        job = r.wait_job(id, patience=60)
        assert job["status"] == "failed" and job["error"]["code"] == "upstream_status", job
        assert job["stages"]["ask"]["attempts"] == 5 and ms(job["next_retry_at"]) > ms(job["finished_at"]), job
        again = events(r, id, "stage.retrying")
        assert [e["attempt"] for e in again] == [1, 2, 3, 4], again
        for n, each in enumerate(again):
            bound = min(300, 100 * 2 ** n)
            assert 0 <= each["delay_ms"] <= bound and not each["throttled"], again
            shares.append(each["delay_ms"] / bound)
        times = asked_at(r.sim, f"fail {i}")
        assert len(times) == 5
        for one, two, each in zip(times, times[1:], again):
            assert two - one >= max(50, each["delay_ms"]) - 1, (times, again)
    assert min(shares) < 0.25 and max(shares) > 0.75, shares


def test_a_provider_says_when(new_rig):
    """503 with Retry-After: the next attempt is made then, not by the backoff of an hour.
    Fails with: core/work/work_ops.c, work_fail: `fail.delay_ms = work_backoff(stage, run->attempts[stage->index]);`"""
    r = new_rig(pipelines={"ask": samples.ask(retry={"attempts": 2, "backoff": "1h", "max_backoff": "1h"})})
    r.sim.rule({"status": 503, "headers": {"Retry-After": "1"}}, times=1)
    job = r.run("ask", {"say": "later"})
    assert job["status"] == "completed" and job["stages"]["ask"]["attempts"] == 2, job
    assert [e["delay_ms"] for e in events(r, job["id"], "stage.retrying")] == [1000]
    one, two = asked_at(r.sim, "later")
    assert two - one >= 999, (one, two)


def test_a_stage_that_takes_too_long(new_rig):
    """The stage's timeout ends an attempt like any failure of class retry; the call is closed.
    Fails with: core/run/runner.c, task_attempt: `clock_now_ms() + stage->timeout_ms + 3600000`"""
    r = new_rig(pipelines={"ask": samples.ask(timeout="300ms", retry={"attempts": 2, "backoff": "50ms"})})
    r.sim.rule({"hold": True}, {"contains": "slow"})
    job = r.run("ask", {"say": "slow"})
    assert job["status"] == "failed" and job["error"]["code"] == "timeout" and job["error"]["retryable"], job
    assert job["stages"]["ask"]["attempts"] == 2 and "next_retry_at" in job, job
    assert events(r, job["id"], "stage.retrying")[0]["error"]["code"] == "timeout"
    r.sim.wait(client_closed=2)
    assert len(asked_at(r.sim, "slow")) == 2


# ---- Permanent, cancelled, bug ----

PERMANENT = {
    "no request of ours": ({"status": 400}, None, "upstream_status", "permanent"),
    "refused key": ({"status": 401}, None, "auth", "permanent"),
    "used-up account": ({"status": 429, "code": "insufficient_quota"}, None, "quota", "permanent"),
    "says that it failed": (None, "mute", "plugin", "permanent"),
    "no code at all": (None, "positive", "internal", "bug"),
    "not cancelled": (None, "cancelled", "internal", "bug"),
    "not lost": (None, "lost", "internal", "bug"),
    "not stopping": (None, "stopping", "internal", "bug"),
}


def test_what_no_attempt_can_mend(new_rig):
    """Classes permanent and bug (also a plugin that says it was cancelled, and was not): one attempt, the dead letters at
    once, no reprocessing.
    Fails with: core/state/fail.lua: `(class == 'throttled' or attempts + 1 < most)`"""
    bad = {"stages": [{"name": "bad", "plugin": "misbehave", "retry": {"attempts": 5, "backoff": "50ms"}}]}
    r = new_rig(pipelines={"ask": samples.ask(), "bad": bad}, config={"plugins": PLUGINS})
    for name, (answer, how, code, cls) in PERMANENT.items():
        if answer:
            r.sim.reset()
            r.sim.rule(answer)
            job = r.run("ask", {"say": name})
            assert len(asked_at(r.sim, name)) == 1, name
        else:
            job = r.run("bad", {"how": how})
        assert job["error"]["code"] == code and not job["error"]["retryable"], (name, job)
        stage = job["stages"]["bad" if how else "ask"]
        assert stage["status"] == "failed" and stage["attempts"] == 1, (name, job)
        assert r.redis.hget(f"mr:{{0}}:job:{job['id']}", "class") == cls, name
        assert r.redis.zscore("mr:{0}:dead", job["id"]), name
        assert events(r, job["id"], "stage.retrying") == [], name
        assert_over(r, job)


# ---- Throttled ----


def test_throttled_leaves_the_worker(new_rig):
    """A 429 with Retry-After, in a process of one slot: another job runs meanwhile, and the one that waits has not used
    its only attempt, however often it was sent away.
    Fails with: core/state/fail.lua: `attempts = attempts + 1` for every class."""
    r = new_rig(pipelines={"ask": samples.ask(retry={"attempts": 1})}, config={"concurrency": 1})
    r.sim.rule({"status": 429, "headers": {"retry-after-ms": "1500"}}, {"contains": "sent away"}, times=3)
    first = r.submit("ask", {"say": "sent away"})["id"]
    for turn in range(1, 4):
        r.sim.wait(requests=turn, contains="sent away")
        r.wait_job(first, until=("waiting",))
        other = r.run("ask", {"say": f"meanwhile {turn}"})
        assert other["status"] == "completed", other
    job = r.wait_job(first)
    assert job["status"] == "completed" and job["stages"]["ask"]["attempts"] == 1, job
    again = events(r, first, "stage.retrying")
    assert len(again) == 3 and all(e["throttled"] and e["delay_ms"] == 1500 and e["attempt"] == 0 for e in again), again
    times = asked_at(r.sim, "sent away")
    assert len(times) == 4 and all(two - one >= 1499 for one, two in zip(times, times[1:])), times
    # It was away while the others ran.
    order = [e["text"] for e in r.sim.journal()]
    assert order == [text for turn in range(1, 4) for text in ("sent away", f"meanwhile {turn}")] + ["sent away"], order


def test_the_own_limiter_lets_others_run(new_rig):
    """Over an endpoint's rpm a task leaves its slot, the only one, to jobs that do not ask that endpoint; no attempt used.
    Fails with: core/work/work_limit.c, work_take: LIMIT_AWAIT_MS of an hour."""
    r = new_rig(pipelines={"ask": samples.ask(retry={"attempts": 1}), "echo": samples.ECHO},
                config={"concurrency": 1, "endpoints": {"openai": {"rpm": 5}}})
    assert r.run("ask", {"say": "in"})["status"] == "completed"
    over = r.submit("ask", {"say": "over"})["id"]
    r.wait_job(over, until=("waiting",))
    for i in range(3):
        assert r.run("echo", {"n": i})["status"] == "completed"
    job = r.job(over)
    assert job["status"] == "waiting" and len(r.sim.journal()) == 1, job
    job = r.wait_job(over)
    assert job["status"] == "completed" and job["stages"]["ask"]["attempts"] == 1, job
    one, two = (e["at"] for e in r.sim.journal())
    assert two - one >= 11900, (one, two)


# ---- When: by Redis's clock ----


@pytest.mark.parametrize("skew_s", [3600, -3600])
def test_a_host_whose_clock_is_wrong(new_rig, tmp_path, skew_s):
    """Front and workers believe it is an hour later, or earlier, than Redis does: delays, run_at, deadlines, retries and
    leases are as on a host whose clock is right.
    Fails with: fcgi/submission.c, submission_send: `delay_ms += run_at_ms - clock_wall_ms()` in place of `run_at_ms`."""
    library = tmp_path / "skew.so"
    (tmp_path / "skew.c").write_text(SKEW)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, tmp_path / "skew.c"], check=True)
    r = new_rig(pipelines={"ask": samples.ask(retry={"attempts": 2, "backoff": "50ms"}), "echo": samples.ECHO},
                config={"lease": "1s"}, env={"LD_PRELOAD": str(library), "SKEW_S": str(skew_s),
                                             "ASAN_OPTIONS": "verify_asan_link_order=0"})

    def server_ms():
        seconds, micros = r.redis.time()
        return seconds * 1000 + micros // 1000

    def at(offset_ms):
        when = datetime.datetime.fromtimestamp((server_ms() + offset_ms) / 1000, datetime.timezone.utc)
        return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    # In the past: at once.
    job = r.run("echo", {"run_at": "past"}, run_at=at(-600_000))
    assert job["status"] == "completed", job
    assert abs(ms(job["created_at"]) - server_ms()) < 120_000, job
    # Soon, and not before.
    before = server_ms()
    job = r.run("echo", {"run_at": "soon"}, run_at=at(1500))
    assert job["status"] == "completed" and ms(job["started_at"]) >= before + 1500, (before, job)
    assert ms(job["started_at"]) < before + 60_000
    # In half an hour: not now; and a delay is one.
    later = r.submit("echo", {"run_at": "later"}, run_at=at(1_800_000))
    assert later["status"] == "waiting", later
    half = float(next(s for m, s in r.redis.zrange("mr:{0}:due", 0, -1, withscores=True) if later["id"] in m))
    assert abs(half - server_ms() - 1_800_000) < 60_000, half
    job = r.run("echo", {"delay": 1}, delay="1s")
    assert ms(job["started_at"]) - ms(job["created_at"]) >= 1000, job
    # A deadline and a retry.
    r.sim.rule({"hold": True}, {"contains": "too late"})
    r.sim.rule({"status": 500}, {"contains": "again"}, times=1)
    late = r.submit("ask", {"say": "too late"}, deadline="1s")["id"]
    assert r.run("ask", {"say": "again"})["status"] == "completed"
    job = r.wait_job(late)
    assert job["status"] == "failed" and job["error"]["code"] == "deadline", job
    assert ms(job["finished_at"]) - ms(job["created_at"]) >= 1000, job
    # Leases are renewed and nothing is taken over: one worker's, for longer than its lease.
    r.sim.rule({"hold": True}, {"contains": "long"})
    long = r.submit("ask", {"say": "long"})["id"]
    r.sim.wait(held=1)
    began = server_ms()
    r.until(lambda: server_ms() > began + 2500)
    r.sim.release()
    job = r.wait_job(long)
    assert job["status"] == "completed" and len(asked_at(r.sim, "long")) == 1, job


def test_delayed_until_then(new_rig):
    """A delayed job is queued by the mover, at its time, by whichever worker is there.
    Fails with: core/state/lib/base.lua, later: `return string.format('%.0f', at)`"""
    r = new_rig(workers=2, pipelines={"echo": samples.ECHO})
    ids = [r.submit("echo", {"n": i}, delay=f"{300 + 20 * i}ms")["id"] for i in range(40)]
    assert r.job(ids[-1])["status"] == "waiting"
    for i, id in enumerate(ids):
        job = r.wait_job(id)
        assert job["status"] == "completed", job
        assert ms(job["started_at"]) - ms(job["created_at"]) >= 300 + 20 * i, job
    assert due(r) == []


# ---- Deadlines ----


def test_deadlines(new_rig):
    """A job whose deadline passes while it is queued, delayed, between attempts, running, sent away by a rate limit, or
    waiting in a call ends as failed, `deadline`; it is not run again by itself, and what it called has ended too.
    Fails with: core/state/wake.lua, kind x: `if true then return gone() end`"""
    parent = {"stages": [{"name": "up", "plugin": "reward", "options": {"targets": [
        {"name": "down", "mode": "call", "pipeline": "ask", "timeout": "60s", "input": {"say": "{{ .input.say }}"}}]}}]}
    r = new_rig(pipelines={
        "ask": samples.ask(timeout="1h"), "parent": parent,
        "stubborn": samples.ask(retry={"attempts": 9, "backoff": "1h", "max_backoff": "1h"}),
        "nap": samples.NAP, "elsewhere": {"stages": [{"name": "say", "plugin": "echo", "queue": "elsewhere"}]},
    }, config={"queues": ["default"]})
    r.sim.rule({"hold": True}, {"contains": "held"})
    r.sim.rule({"status": 500}, {"contains": "broken"})
    r.sim.rule({"status": 429, "headers": {"Retry-After": "100"}}, {"contains": "away"})
    ids = {
        "queued": r.submit("elsewhere", {"n": 1}, deadline="1s")["id"],
        "delayed": r.submit("nap", {"n": 1}, delay="1h", deadline="1s")["id"],
        "between attempts": r.submit("stubborn", {"say": "broken"}, deadline="1s")["id"],
        "sent away": r.submit("ask", {"say": "away"}, deadline="1s")["id"],
        "in a model call": r.submit("ask", {"say": "held"}, deadline="1s")["id"],
        "asleep": r.submit("nap", {"n": 2}, deadline="1s")["id"],
        "in a call": r.submit("parent", {"say": "held child"}, deadline="1s")["id"],
    }
    for name, id in ids.items():
        job = r.wait_job(id)
        assert job["status"] == "failed" and job["error"]["code"] == "deadline", (name, job)
        assert not job["error"]["retryable"], (name, job)
        assert ms(job["finished_at"]) - ms(job["created_at"]) >= 1000, (name, job)
        assert events(r, id, "job.failed")[0]["error"]["code"] == "deadline", name
        assert_over(r, job)
    child = next(k for k in r.redis.scan_iter("mr:{0}:job:*") if "held child" in r.redis.hget(k, "input")
                 and r.redis.hget(k, "pipeline") == "ask")
    r.until(lambda: r.redis.hget(child, "status") in ("cancelled", "failed"))
    r.sim.wait(client_closed=2)
    r.until(lambda: due(r) == [])
    assert "stage.completed" not in [e["event"] for id in ids.values() for e in r.events(id).json["data"]]


def test_a_deadline_while_its_worker_is_dead(new_rig):
    """The deadline passes while the lane's worker is dead and its lease runs on: it ends when the lease does, it is not
    begun again.
    Fails with: core/state/begin.lua: `local winding = false`"""
    r = new_rig(pipelines={"ask": samples.ask(timeout="1h")}, config={"lease": "2s"})
    r.sim.rule({"hold": True})
    id = r.submit("ask", {"say": "held"}, deadline="1s")["id"]
    r.sim.wait(held=1)
    worker = r.workers()
    r.kill(r.daemon.pid)
    r.kill(worker)
    for pid in worker:
        rigs.until_gone(pid)
    r.daemon.stop()
    r.start_daemon()
    r.until_ready()
    job = r.wait_job(id)
    assert job["status"] == "failed" and job["error"]["code"] == "deadline", job
    assert_over(r, job)
    assert ledger.asked(r.sim)["held"] == 1
