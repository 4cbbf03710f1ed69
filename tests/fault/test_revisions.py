"""Jobs whose revision of a pipeline a host cannot run: its plugin is not there."""

import rig as rigs
import samples

MISBEHAVE = {"plugins": [str(rigs.BUILD / "plugins"), str(rigs.BUILD / "tests" / "plugins")]}
TWO = {"stages": [samples.model("ask", "ask {{ .input.n }}", retry={"attempts": 9, "backoff": "50ms"}),
                  {"name": "tell", "plugin": "misbehave", "options": {"how": "well"}}],
       "result": {"tell": "{{ .tell }}"}}
PLAIN = {"name": "tell", "plugin": "transform", "options": {"output": "plain"}}


def changed(new_rig, then, **more):
    """A job of TWO waits for the model; the host is stopped and comes back without the plugin of its second stage and
    with `then` for a pipeline."""
    r = new_rig(workers=1, pipelines={"change": TWO, **more}, config={**MISBEHAVE, "drain": "1s"})
    r.sim.rule({"hold": True})
    id = r.submit("change", {"n": "1"})["id"]
    r.sim.wait(held=1)
    r.stop_daemon()
    r.sim.control("DELETE", "rules")
    with_it, r.config["plugins"] = r.config["plugins"], [str(rigs.BUILD / "plugins")]
    r.write_config()
    r.write_pipeline("change", then)
    r.start_daemon()
    return r, id, with_it


def test_revision_of_a_missing_plugin_moves_on(new_rig):
    """A newer host that cannot run a job's revision moves it to its own, when the job stands where that could have
    brought it.
    Fails with: core/work/work_begin.c, work_begin_revision: `at->begin.adopt_count = 0;`"""
    r, id, _ = changed(new_rig, {**TWO, "stages": [TWO["stages"][0], PLAIN]})
    job = r.wait_job(id)
    assert (job["status"], job["result"]) == ("completed", {"tell": "plain"}), job
    r.daemon.wait_line("job moved to this host's revision")


def test_revision_of_a_missing_plugin_cannot_move_on(new_rig):
    """The newer revision has the open stage in another queue: the job fails, and says why.
    Fails with: core/state/begin.lua: `fits = fits` where the queue is another."""
    r, id, _ = changed(new_rig, {**TWO, "stages": [{**TWO["stages"][0], "queue": "models"}, PLAIN]})
    job = r.wait_job(id)
    assert (job["status"], job["error"]["code"]) == ("failed", "pipeline_changed"), job
    assert "misbehave" in job["error"]["message"], job


def test_host_that_is_behind_waits(new_rig):
    """A host with an older revision, which cannot run the job's newer one, leaves the job to others.
    Fails with: core/work/work_begin.c, work_begin_revision: without `|| grant->own_number <= grant->revision_number`."""
    older = {**TWO, "stages": [TWO["stages"][0], PLAIN]}
    r = new_rig(workers=1, pipelines={"change": older}, config={**MISBEHAVE, "drain": "1s"})
    r.stop_daemon()
    r.write_pipeline("change", TWO)
    r.start_daemon()
    r.until_ready()
    r.sim.rule({"hold": True})
    id = r.submit("change", {"n": "1"})["id"]
    r.sim.wait(held=1)
    r.stop_daemon()
    r.sim.control("DELETE", "rules")
    with_it, r.config["plugins"] = r.config["plugins"], [str(rigs.BUILD / "plugins")]
    r.write_config()
    r.write_pipeline("change", older)
    r.start_daemon()
    r.until_ready()
    r.daemon.wait_line("lane parked: this host cannot run its revision|lane refused|moved to this host")
    assert r.redis.hget(f"mr:{{0}}:job:{id}", "status") != "failed"
    r.stop_daemon()
    r.config["plugins"] = with_it
    r.write_config()
    r.write_pipeline("change", TWO)
    r.start_daemon()
    job = r.wait_job(id)
    assert (job["status"], job["result"]) == ("completed", {"tell": "well"}), job
