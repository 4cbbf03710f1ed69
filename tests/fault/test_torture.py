"""The torture's short form, and proof that its checker can fail.

The long form is `tests/fault/torture --jobs 100000 --seed N` (docs/testing.md). Here: about twenty seconds of faults, from
a seed that is printed with the verdict, then copies of its evidence are damaged and the checker has to see each damage.
"""

import copy
import json
import pathlib
import pickle
import re
import subprocess

import pytest
import torture_check
import torture_faults
import torture_jobs

TORTURE = pathlib.Path(__file__).with_name("torture")
SEED = 20


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(exit status, output, evidence) of one torture."""
    file = tmp_path_factory.mktemp("torture") / "evidence"
    done = subprocess.run([TORTURE, "--seed", str(SEED), "--jobs", "3000", "--seconds", "22", "--window", "100", "--kill-every", "0.5",
                           "--trouble-every", "1", "--keep", file], capture_output=True, text=True, timeout=220, check=False)
    assert file.exists(), done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr, pickle.loads(file.read_bytes())


def test_every_promise_is_kept(run):
    """Kills, stops, ended daemons, troubles of Redis and cut connections, with two hosts: nothing is lost, nothing takes
    effect twice, and nothing is paid for twice.
    Fails with: core/state/submit.lua, first branch: `if status == 'none' then` (a repeated submission begins the job anew: lost,
    paid_twice); core/base/id.c, id_of_child: `add_part(&name, random_text)` for the parent's id (double_effect);
    core/state/commit.lua, a stage that is not in the lane: `if false then` for `if not found then` (events and counts twice)."""
    status, output, _ = run
    verdict = output.strip().splitlines()[-1]
    print(verdict)
    assert status == 0, output
    found = re.search(r"jobs=(\d+) completed=(\d+) cancelled=(\d+) failed=0 kills=(\d+) .*lost=0 double_effect=0 paid_twice=0 "
                      r"repeated_calls=\d+ \(bound \d+\) wrong=0", verdict)
    assert found, verdict
    jobs, completed, cancelled, kills = map(int, found.groups())
    assert jobs == completed + cancelled and jobs >= 300 and cancelled > 0 and kills >= 10, verdict


def test_the_same_seed_is_the_same_plan():
    def first(seed, count=200):
        plan = torture_faults.plan(seed, 0.5, 1, True)
        return [next(plan) for _ in range(count)]

    assert first(1) == first(1) != first(2)
    assert {fault["kind"] for fault in first(1, 2000)} == {
        *torture_faults.KILLS, *torture_faults.TROUBLES, *torture_faults.REDIS_TROUBLES}
    assert [torture_jobs.job(1, i) for i in range(50)] == [torture_jobs.job(1, i) for i in range(50)]


# ---- damages: each takes the evidence and returns the promise that has to be found broken ----


def one(evidence, pipeline, status="completed"):
    """A job of the evidence."""
    return next(id for id, job in evidence["jobs"].items()
                if job["hash"].get("pipeline") == pipeline and job["hash"].get("status") == status)


def n_of(evidence, id):
    return json.loads(evidence["jobs"][id]["hash"]["input"])["n"]


def lost_job(evidence):
    del evidence["jobs"][one(evidence, "chain")]
    return "lost"


def lost_child(evidence):
    del evidence["jobs"][one(evidence, "kid")]
    return "lost"


def not_ended(evidence):
    evidence["jobs"][one(evidence, "fan")]["hash"]["status"] = "processing"
    return "lost"


def other_result(evidence):
    evidence["jobs"][one(evidence, "chain")]["hash"]["result"] = "{}"
    return "lost"


def completed_though_cancelled(evidence):
    record = next(r for r in evidence["records"] if r["cancel"] == 409)
    record["cancel"] = 202
    return "lost"


def lost_row(evidence):
    n = n_of(evidence, one(evidence, "chain"))
    evidence["rows"]["keyed"] = [row for row in evidence["rows"]["keyed"] if row[1] != n]
    return "lost"


def second_row(evidence):
    id, n, what = evidence["rows"]["keyed"][0]
    evidence["rows"]["keyed"].append(("another id", n, what))
    return "double_effect"


def unkeyed_row_again(evidence):
    evidence["rows"]["unkeyed"] += [evidence["rows"]["unkeyed"][0]] * 30
    return "double_effect"


def second_child(evidence):
    id = one(evidence, "kin")
    evidence["jobs"]["00000000-0000-5000-8000-000000000000"] = copy.deepcopy(evidence["jobs"][id])
    return "double_effect"


def stray_job(evidence):
    job = copy.deepcopy(evidence["jobs"][one(evidence, "nap")])
    job["hash"]["input"] = '{"n":"n999999999."}'
    evidence["jobs"]["00000000-0000-5000-8000-000000000000"] = job
    return "double_effect"


def asked_after_it_was_stored(evidence):
    id = one(evidence, "chain")
    stored = next(e for e in evidence["jobs"][id]["log"] if e.startswith("stage.completed") and '"first"' in e)
    evidence["faults"] = [f for f in evidence["faults"] if f["kind"] != "stop worker"]
    evidence["calls"].append((f"first of {n_of(evidence, id)}", int(stored.split()[1]) + 10, 5, "answered", 200))
    return "paid_twice"


def asked_once_too_often(evidence):
    id = one(evidence, "fan")
    evidence["calls"] += [(f"left of {n_of(evidence, id)}", 1, 5, "answered", 200)] * 30
    return "repeated_calls"


def asked_without_a_fault(evidence):
    """As many calls as the stage began, and no fault at all."""
    id = next(id for id, job in evidence["jobs"].items() if job["hash"].get("pipeline") == "fan")
    evidence["jobs"][id]["log"].insert(1, 'stage.started 1 {"stage":"left"}')
    evidence["calls"] += [(f"left of {n_of(evidence, id)}", 1, 5, "answered", 200)]
    evidence["faults"] = []
    return "repeated_calls"


def missing_event(evidence):
    evidence["jobs"][one(evidence, "chain")]["log"].pop(1)
    return "wrong"


def event_again(evidence):
    job = evidence["jobs"][one(evidence, "chain")]
    job["log"].insert(3, next(e for e in job["log"] if e.startswith("stage.completed")))
    return "wrong"


def second_end(evidence):
    job = evidence["jobs"][one(evidence, "chain")]
    job["log"].append(job["log"][-1])
    return "wrong"


def lane_left(evidence):
    evidence["jobs"][one(evidence, "chain")]["hash"]["l:1"] = "q default normal 1-1 - - 0 0 0 first"
    return "wrong"


def no_time_to_live(evidence):
    evidence["jobs"][one(evidence, "chain")]["ttl"][0] = -1
    return "wrong"


def entry_left(evidence):
    evidence["left"]["entries of mr:{0}:queue:default:normal"] = 1
    return "wrong"


DAMAGES = (lost_job, lost_child, not_ended, other_result, completed_though_cancelled, lost_row, second_row, unkeyed_row_again,
           second_child, stray_job, asked_after_it_was_stored, asked_once_too_often, asked_without_a_fault, missing_event, event_again,
           second_end, lane_left, no_time_to_live, entry_left)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_checker_sees(run, damage):
    evidence = copy.deepcopy(run[2])
    assert not torture_check.check(evidence).found
    broken = damage(evidence)
    found = torture_check.check(evidence)
    assert broken in {kind for kind, _, _ in found.found}, (found.found[:5], found.figures())
    assert f"{broken}=0" not in found.figures() and found.account()
