"""A plugin that crashes or never gives the loop back: it alone is charged, its neighbours go on, it ends as poison."""

import resource
import subprocess

import ledger
import rig as rigs
import samples

SOURCE = r"""
#include <millrace/plugin.h>
#include <stdlib.h>

struct settings {
    int32_t how;
};
static const struct mr_option options[] = {
    MR_OPT_CHOICE(struct settings, how, "how", NULL, "crash|hang", MR_REQUIRED, "What goes wrong."),
};

static int run(mr_context *cx, const void *settings)
{
    const struct settings *set = settings;
    volatile unsigned turns = 0;
    (void)cx;
    if (set->how == 0)
        abort();
    for (;;)
        turns++;
}

MR_PLUGIN(bad) = {
    MR_PLUGIN_HEAD("bad", struct settings, options),
    .version = "1.0",
    .summary = "Does what no plugin should.",
    .run = run,
};
"""


def bad_rig(new_rig, how, **config):
    """A rig with a plugin of its own beside those of the build, compiled as its author would."""
    r = new_rig(workers=1, start=False, pipelines={
        "books": ledger.BOOKS, "ask": samples.ask(),
        "bad": {"stages": [samples.model("before", "before bad {{ .input.n }}"),
                           {"name": "worse", "plugin": "bad", "retry": {"attempts": 10, "backoff": "50ms"},
                            "options": {"how": how}}]}},
        config={"max_crashes": 2, **config})
    folder = r.folder / "plugins"
    folder.mkdir()
    source = folder / "bad.c"
    source.write_text(SOURCE)
    subprocess.run(["cc", "-std=gnu17", "-shared", "-fPIC", "-O1", "-fvisibility=hidden", "-I", rigs.ROOT / "core" / "include",
                    "-o", folder / "bad.so", source], check=True)
    r.config["plugins"].append(str(folder))
    r.write_config()
    r.start_daemon()
    r.start_lighttpd()
    r.until_ready()
    ledger.prepare(r)
    return r


def poison(r, patience):
    """Neighbours in mid-stage, then the bad job: it ends as poison after max_crashes + 1, they complete."""
    r.sim.rule({"hold": True}, {"contains": "second of"})
    jobs = ledger.submit(r, 10)
    r.sim.wait(held=10)
    bad = r.submit("bad", {"n": 1})["id"]
    job = r.wait_job(bad, patience=patience)
    assert job["status"] == "failed" and job["error"]["code"] == "poison", job
    assert "plugin bad, SIGABRT" in job["error"]["message"] and job["error"]["stage"] == "worse", job
    r.sim.control("DELETE", "rules")
    r.sim.release()
    for n, id in jobs.items():
        r.sim.release()
        done = r.wait_job(id, patience=60)
        assert done["status"] == "completed", done
    counts = ledger.asked(r.sim)
    assert all(counts[f"first of {n}"] == 1 for n in jobs), counts
    assert counts["before bad 1"] == 1, counts
    assert all(ledger.rows(r)[(n, what)] == 1 for n in jobs for what in ("noted", "booked"))
    r.killed.add(0)  # the crashes in the log are wanted
    return job


def test_a_crash_is_charged_to_its_job_alone(new_rig):
    """Fails with: core/app/supervisor.c, supervisor_charge: `charged = false;`; and with core/state/begin.lua:
    `local culprit = judged or ARGV[13] ...` (its neighbours are poison then)."""
    poison(bad_rig(new_rig, "crash"), 60)


def test_a_stage_that_holds_the_loop_is_ended_and_charged(new_rig):
    """Fails with: core/work/keeper.c: no abort() when the loop has stood still for `stall`."""
    r = bad_rig(new_rig, "hang", stall="1s", lease="1s")
    job = poison(r, 90)
    assert job["stages"]["before"]["status"] == "completed"


NEIGHBOURS = 2000


def test_thousands_of_neighbours(new_rig):
    """An endless loop in a process where 2,000 jobs wait for the model (tests/bench/recovery --neighbours 10000 for more):
    the process is aborted three times and once more, the looping job is poison then, and of its neighbours every one
    completes at its first attempt. Each death costs them one more call, the one that was in flight.
    Fails with: core/state/begin.lua: `local culprit = judged or ARGV[13] ...`"""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    r = new_rig(workers=1, pipelines={
        "ask": samples.ask(timeout="1h", retry={"attempts": 1}),
        "bad": {"stages": [{"name": "loop", "plugin": "misbehave", "options": {"how": "stall"}}]}},
        config={"plugins": [str(rigs.BUILD / "plugins"), str(rigs.BUILD / "tests" / "plugins")], "stall": "1s", "lease": "60s",
                "concurrency": NEIGHBOURS + 100, "max_crashes": 3, "log": {"level": "info"}})
    r.sim.rule({"hold": True})
    ids = [r.submit("ask", {"say": f"{i}."})["id"] for i in range(NEIGHBOURS)]
    r.sim.wait(held=NEIGHBOURS)
    bad = r.wait_job(r.submit("bad", {"n": 1})["id"], patience=90)
    assert bad["status"] == "failed" and bad["error"]["code"] == "poison", bad
    assert "plugin misbehave, SIGABRT" in bad["error"]["message"] and bad["error"]["stage"] == "loop", bad
    assert "next_retry_at" not in bad, bad
    r.sim.wait(held=NEIGHBOURS, patience=60)
    r.sim.control("DELETE", "rules")
    r.sim.release()

    def all_done():
        pipe = r.redis.pipeline(transaction=False)
        for id in ids:
            pipe.hmget(f"mr:{{0}}:job:{id}", "status", "s:ask")
        found = pipe.execute()
        assert not [f for f in found if f[0] in ("failed", "cancelled")], found
        return found if all(f[0] == "completed" for f in found) else None

    found = r.until(all_done, patience=60, step=0.5)
    # state attempts throttled …
    assert all(f[1].split()[:3] == ["d", "1", "0"] for f in found), found
    counts = ledger.asked(r.sim)
    assert len(counts) == NEIGHBOURS and max(counts.values()) <= 5, max(counts.values())
    deaths = [line for line in r.daemon.lines if "child died" in line]
    assert len(deaths) == 4 and all("charged_job=" + bad["id"] in line for line in deaths), deaths
    r.killed.add(0)


def test_every_kind_of_crash_names_its_plugin(new_rig):
    """A bad pointer, a stack that overflows, an exit: the job's error says which plugin, and how it went.
    Fails with: core/state/begin.lua: `local named = nil and ARGV[12] ...`"""
    r = new_rig(workers=1, pipelines={
        "bad": {"stages": [{"name": "bad", "plugin": "misbehave", "retry": {"attempts": 10, "backoff": "50ms"}}]}},
        config={"plugins": [str(rigs.BUILD / "plugins"), str(rigs.BUILD / "tests" / "plugins")], "max_crashes": 1,
                "lease": "60s"})
    for how, word in (("segv", "SIGSEGV"), ("overflow", "SIGSEGV"), ("abort", "SIGABRT"), ("exit", "exit")):
        job = r.run("bad", {"how": how}, patience=60)
        assert job["status"] == "failed" and job["error"]["code"] == "poison", job
        assert f"plugin misbehave, {word}" in job["error"]["message"], (how, job)
        assert "next_retry_at" not in job and not job["error"]["retryable"], job
    r.killed.add(0)
