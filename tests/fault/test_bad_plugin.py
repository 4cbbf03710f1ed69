"""A plugin that crashes or never gives the loop back: it alone is charged, its neighbours go on, it ends as poison."""

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
    """Fails with: core/app/supervisor.c, supervisor_charge: `charged = false;`; and with core/work/work_lane.c,
    work_lane_begin: `bool is_culprit = true;` (its neighbours are poison then)."""
    poison(bad_rig(new_rig, "crash"), 60)


def test_a_stage_that_holds_the_loop_is_ended_and_charged(new_rig):
    """Fails with: core/work/keeper.c: no abort() when the loop has stood still for `stall`."""
    r = bad_rig(new_rig, "hang", stall="1s", lease="1s")
    job = poison(r, 90)
    assert job["stages"]["before"]["status"] == "completed"
