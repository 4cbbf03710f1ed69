"""The checker: from the evidence (torture_evidence) to what is wrong.

Every finding belongs to one of the promises:

    lost           an acknowledged job is not there, did not end, failed, ended otherwise than the client was told, or
                   lacks its result, an output or a row
    double_effect  a second id for one effect, a second run of a child, a row of a job that nobody submitted
    paid_twice     a model was asked for a stage whose answer had been stored
    repeated_calls more of them than were in flight at the moments of the faults, or more calls of a stage than it began
    wrong          all else: events out of order, something left in Redis, a process that crashed by itself

A call that repeats one in flight at a kill is no finding; these are counted (repeated_calls) beside the bound.
"""

import bisect
import collections
import json
import uuid

import rig as rigs
import torture_jobs

KINDS = ("lost", "double_effect", "paid_twice", "repeated_calls", "wrong")
CLOCK_MS = 2  # the simulator's clock and Redis's are one, read in whole ms
UNREAD_MS = 250  # what a process sent before it was killed may reach the simulator, which notes the time, so much later
LATE_MS = 2000  # after SIGCONT a worker sends what it was about to send
PAID_BY_NONE = ("reset", "closed")  # outcomes that the simulator chose: nothing was answered
STORE_MS = 1000  # from an answer to its checkpoint, on a busy machine
# What can lose a call, and for how long after it is over it still may. Fronts make no calls, and Redis without its
# scripts is given them again. A worker that was killed is gone; one whose master is gone, or who is ended, drains first.
# One that stood still or was cut off from Redis may have lost its lease, and learns it when it next asks.
LOSES = {"kill worker": 0, "kill master": 4000, "end daemon": 4000, "reload": 6000, "stop worker": 4000, "stop redis": 4000, "kill redis": 4000,
         "pause": 4000, "hold redis": 4000, "drop clients": 4000, "drop listeners": 4000, "cut reply": 4000, "cut request": 4000}


class Event:
    def __init__(self, text):
        self.kind, at, self.body = text.split(" ", 2)
        self.at = int(at.partition(",")[0])
        self.data = json.loads(self.body)
        self.stage = self.data.get("stage")


class Checker:
    def __init__(self, evidence):
        self.__dict__.update(evidence)  # seed, jobs, left, calls, rows, records, faults
        self.found = []
        self.counts = collections.Counter()
        self.events = {}
        self.by_text = collections.defaultdict(list)
        for text, at, took, outcome, status in self.calls:
            self.by_text[text].append((at, took, outcome, status))
        self.expected = set()
        self.faults = sorted(self.faults, key=lambda fault: fault["at"])
        self.stops = [f for f in self.faults if f["kind"] == "stop worker"]
        self.losing = [(f["at"], f["end"] + LOSES[f["kind"]]) for f in self.faults if f["kind"] in LOSES]
        self.losing_at = [at for at, _ in self.losing]
        self.risks = []  # (from, to) of every call: in flight, or answered and not stored yet

    def wrong(self, kind, id, text):
        self.found.append((kind, id, text))

    # ---- one job ----

    def read_events(self, id):
        if id not in self.events:
            self.events[id] = [Event(text) for text in self.jobs[id]["log"]]
        return self.events[id]

    def check_log(self, id, status):
        hash, events = self.jobs[id]["hash"], self.read_events(id)
        kinds = [event.kind for event in events]
        if hash.get("events") != str(len(events)):
            self.wrong("wrong", id, f"the log has {len(events)} events, the hash says {hash.get('events')}")
        if kinds[:1] != ["job.queued"] or kinds.count("job.queued") != int(hash["round"]):
            self.wrong("wrong", id, f"job.queued is not the first event or stands {kinds.count('job.queued')} times")
        ends = [kind for kind in kinds if kind in ("job.completed", "job.failed", "job.cancelled")]
        if ends != ["job." + status] or kinds[-1] != ends[0]:
            self.wrong("wrong", id, f"ends are {ends}, the last event is {kinds[-1:]}")
        done = collections.Counter(e.stage for e in events if e.kind == "stage.completed")
        for stage, count in done.items():
            if count > 1:
                self.wrong("wrong", id, f"{count} times stage.completed of {stage}")
        begun = set()
        for event in events:
            if event.kind == "stage.started":
                begun.add(event.stage)
            elif event.kind in ("stage.completed", "stage.retrying") and event.stage not in begun \
                    and not event.data.get("skipped"):
                self.wrong("wrong", id, f"{event.kind} of {event.stage}, which did not begin")

    def check_rest(self, id, status):
        """What an ended job may and may not have."""
        job = self.jobs[id]
        hash = job["hash"]
        if hash.get("lanes") or any(field.startswith("l:") for field in hash):
            self.wrong("wrong", id, "an ended job has a lane")
        if min(job["ttl"][0], job["ttl"][1]) < 0 or (job["out"] and job["ttl"][2] < 0):
            self.wrong("wrong", id, f"an ended job without a time to live: {job['ttl']}")
        if status != "completed":
            return
        stages = torture_jobs.PIPELINES[hash["pipeline"]]["stages"]
        for stage in stages:
            name = stage["name"]
            if hash.get("s:" + name, "-")[0] not in "ds":
                self.wrong("lost", id, f"completed, but stage {name} is {hash.get('s:' + name)}")
            if name not in job["out"]:
                self.wrong("lost", id, f"completed, but the output of {name} is not there")
        if hash.get("done") != str(len(stages)):
            self.wrong("wrong", id, f"done says {hash.get('done')} of {len(stages)} stages")
        extra = set(job["out"]) - {stage["name"] for stage in stages}
        extra |= {field for field in hash if field.startswith(("calls:", "steps:"))}
        if extra:
            self.wrong("wrong", id, f"left of a completed job: {sorted(extra)}")

    def check_result(self, id, expected):
        text = self.jobs[id]["hash"].get("result")
        try:
            got = json.loads(text)
        except (TypeError, ValueError):
            got = text
        if got != expected:
            self.wrong("lost", id, f"result is {got!r}, not {expected!r}")

    def check_ended(self, id, who):
        """Its status, when it has one of an end; what is common to all ends is checked."""
        job = self.jobs.get(id)
        if job is None or "status" not in job["hash"]:
            self.wrong("lost", id, f"{who} is not there")
            return None
        status = job["hash"]["status"]
        if status not in rigs.ENDED:
            self.wrong("lost", id, f"{who} did not end: {status}")
            return None
        if status == "failed":
            self.wrong("lost", id, f"{who} failed: {job['hash'].get('error')}")
        self.check_log(id, status)
        self.check_rest(id, status)
        return status

    def check_submitted(self, record):
        index = record["index"]
        job = torture_jobs.job(self.seed, index)
        if record["status"] not in (200, 202):
            self.wrong("lost", f"job {index}", f"never accepted: {record['status']} {record.get('reply')}")
            return
        id = rigs.job_id(job["pipeline"], job["body"]["input"], job["key"])
        self.expected.add(id)
        if record["id"] != id:
            self.wrong("double_effect", id, f"was accepted as {record['id']}")
        status = self.check_ended(id, f"job {index} ({job['pipeline']})")
        if status is None:
            return
        self.counts[status] += 1
        cancel = record["cancel"]
        told = {None: ("completed",), 200: ("cancelled",), 202: ("cancelled",), 409: ("completed",)}.get(cancel)
        if told is None:
            self.wrong("lost", id, f"its cancel was answered with {cancel}")
        elif status not in told and status != "failed":
            self.wrong("lost", id, f"is {status} although its cancel was answered with {cancel}")
        children = self.children(id, job, status)
        if status == "completed":
            self.check_result(id, torture_jobs.result(job, children))

    # ---- children ----

    def children(self, id, job, status):
        """{target: id} of the ids by which its children are known; checks them."""
        found = {}
        kinds = torture_jobs.CHILDREN.get(job["pipeline"], {})
        if not kinds:
            return found
        for target, pipeline in kinds.items():
            ids = self.by_parent.get((pipeline, job["n"]), [])
            if target == "kid":
                found[target] = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"kid:{job['n']}"))
                if ids and ids != [found[target]]:
                    self.wrong("double_effect", id, f"{target} should be {found[target]}, there are {ids}")
            elif len(ids) > 1:
                self.wrong("double_effect", id, f"{len(ids)} children for {target}: {ids}")
            if target != "kid":
                found[target] = ids[0] if ids else None
            if status == "completed" and not ids:
                self.wrong("lost", id, f"completed without its child for {target}")
            self.expected.update(ids)
            for child in ids:
                self.check_child(child, target, pipeline, job["n"], status)
        return found

    def check_child(self, id, target, pipeline, n, parent):
        status = self.check_ended(id, f"{target} of {n}")
        if status is None:
            return
        self.counts["children"] += 1
        if self.jobs[id]["hash"].get("round") != "1":
            self.wrong("double_effect", id, f"{target} of {n} ran {self.jobs[id]['hash'].get('round')} times")
        if status == "cancelled" and (target != "child" or parent == "completed"):
            self.wrong("lost", id, f"{target} of {n} was cancelled; its parent is {parent}")
        if status == "completed":
            self.check_result(id, torture_jobs.child_result(pipeline, id, n))

    # ---- effects ----

    def check_rows(self):
        keyed, unkeyed = collections.Counter(), collections.Counter()
        for id, n, what in self.rows["keyed"]:
            keyed[(what, n)] += 1
            if id not in self.expected:
                self.wrong("double_effect", id, f"row {what} of {n} is of a job that nobody submitted")
        for (what, n), count in keyed.items():
            if count > 1:
                self.wrong("double_effect", n, f"{count} rows {what}")
        for id, n, what in self.rows["unkeyed"]:
            unkeyed[(id, what)] += 1
            if id not in self.expected:
                self.wrong("double_effect", id, f"unkeyed row {what} of {n} is of a job that nobody submitted")
        for id in self.expected & self.jobs.keys():
            hash = self.jobs[id]["hash"]
            if "pipeline" not in hash:
                continue
            pipeline, n, is_done = hash["pipeline"], json.loads(hash["input"])["n"], hash.get("status") == "completed"
            if is_done and not keyed[(pipeline, n)]:
                self.wrong("lost", id, f"row {pipeline} of {n} is not there")
            for stage in torture_jobs.ROWS.get(pipeline, ()):
                count = unkeyed[(id, pipeline)]
                begun = sum(e.kind == "stage.started" and e.stage == stage for e in self.read_events(id))
                if is_done and count == 0:
                    self.wrong("lost", id, f"the unkeyed row of {stage} is not there")
                elif count > begun:
                    self.wrong("double_effect", id, f"{count} unkeyed rows of {stage}, which began {begun} times")
                self.counts["repeated_rows"] += max(0, count - 1)

    def was_stopped(self, stored, at):
        """Whether a worker that stood still while the answer was stored sent this call when it went on."""
        return any(f["at"] <= stored and f["end"] <= at + CLOCK_MS and at <= f["end"] + LATE_MS for f in self.stops)

    def check_calls(self):
        known = set()
        for id in self.expected & self.jobs.keys():
            hash = self.jobs[id]["hash"]
            if "pipeline" not in hash:
                continue
            n = json.loads(hash["input"])["n"]
            for stage in torture_jobs.PIPELINES[hash["pipeline"]]["stages"]:
                if stage["plugin"] == "llm":
                    text = f"{stage['name']} of {n}"
                    known.add(text)
                    self.check_stage_calls(id, stage["name"], self.by_text.get(text, ()))
        for text in self.by_text.keys() - known:
            self.wrong("double_effect", text, "the model was asked by a job that nobody submitted")

    def check_stage_calls(self, id, stage, calls):
        events = [e for e in self.read_events(id) if e.stage == stage]
        begun = sum(e.kind == "stage.started" for e in events)
        stored = next((e for e in events if e.kind == "stage.completed"), None)
        # A kept connection that is reset before the first byte: curl itself sends the request again, once.
        repeated_by_curl = sum(outcome == "reset" for _, _, outcome, _ in calls)
        if len(calls) - repeated_by_curl > begun:
            self.wrong("repeated_calls", id, f"the model was asked {len(calls)} times for {stage}, which began {begun} times")
        paid = [call for call in calls if call[3] == 200 and call[2] not in PAID_BY_NONE]
        self.counts["calls"] += len(calls)
        self.counts["planned_failures"] += len(calls) - len(paid)
        self.counts["repeated_calls"] += max(0, len(paid) - 1)
        if stored and not stored.data.get("skipped") and not paid:
            self.wrong("lost", id, f"stage {stage} has an output, and nobody asked the model")
        for at, took, _, _ in paid[:-1]:
            if not self.may_be_lost(at, at + took):
                self.wrong("repeated_calls", id, f"the call for {stage} at {at} was repeated, and no fault met it")
        for at, took, outcome, _ in paid:
            end = at + (took if outcome != "pending" else 0)
            self.risks.append((at, max(end, stored.at if stored and stored.at <= end + 1000 else 0)))
            if stored and at > stored.at + CLOCK_MS:
                if self.was_stopped(stored.at, at):
                    self.counts["late_calls"] += 1
                else:
                    self.wrong("paid_twice", id, f"{stage} was stored at {stored.at}, and the model was asked at {at}")

    def may_be_lost(self, begin, end):
        """Whether a fault met a call in flight, or its answer before it was stored."""
        last = bisect.bisect_right(self.losing_at, end + STORE_MS)
        return any(over + UNREAD_MS >= begin for _, over in self.losing[max(0, last - 200) : last])

    def bound(self):
        """The calls that the faults found in flight, each with each fault."""
        begins, ends = sorted(r[0] for r in self.risks), sorted(r[1] for r in self.risks)
        return sum(bisect.bisect_right(begins, f["end"]) - bisect.bisect_left(ends, f["at"]) for f in self.faults
                   if f["kind"] in LOSES)

    # ---- all ----

    def check(self):
        self.by_parent = collections.defaultdict(list)
        for id, job in self.jobs.items():
            if "pipeline" in job["hash"]:
                self.by_parent[(job["hash"]["pipeline"], json.loads(job["hash"]["input"])["n"])].append(id)
        for record in self.records:
            self.check_submitted(record)
        for id in self.jobs.keys() - self.expected:
            if "tomb" not in self.jobs[id]["hash"]:
                self.wrong("double_effect", id, f"nobody submitted it: {self.jobs[id]['hash'].get('pipeline')}")
        self.check_rows()
        self.check_calls()
        for what, count in self.left.items():
            self.wrong("wrong", "Redis", f"left: {count} {what}")
        self.counts["bound"] = self.bound()
        if self.counts["repeated_calls"] > self.counts["bound"]:
            self.wrong("repeated_calls", "all", f"{self.counts['repeated_calls']} calls were repeated, {self.counts['bound']} "
                                                "were in flight at a fault")
        return self

    def figures(self):
        """The promises' part of the last line."""
        per = collections.Counter(kind for kind, _, _ in self.found)
        repeated = f"repeated_calls={self.counts['repeated_calls']} (bound {self.counts['bound']})"
        more = f" unexplained={per['repeated_calls']}" if per["repeated_calls"] else ""
        return (f"lost={per['lost']} double_effect={per['double_effect']} paid_twice={per['paid_twice']} {repeated}{more} "
                f"wrong={per['wrong']}")

    def account(self, most=12):
        """What is wrong, and all that is known of the jobs it is about."""
        lines, told = [], set()
        for kind, id, text in self.found[:200]:
            lines.append(f"{kind}: {id}: {text}")
        if len(self.found) > 200:
            lines.append(f"... and {len(self.found) - 200} more")
        for _, id, _ in self.found:
            if id in self.jobs and id not in told and len(told) < most:
                told.add(id)
                lines += ["", f"== {id}"] + self.account_of(id)
        return "\n".join(lines)

    def account_of(self, id):
        job = self.jobs[id]
        lines = [f"  {field} = {value}" for field, value in sorted(job["hash"].items())]
        lines += [f"  out {field} = {value[:200]}" for field, value in job["out"].items()]
        lines += [f"  ttl {job['ttl']}"] + [f"  event {i + 1}: {text}" for i, text in enumerate(job["log"])]
        n = json.loads(job["hash"]["input"])["n"] if "input" in job["hash"] else None
        for text, calls in self.by_text.items():
            if n and text.endswith(f" of {n}"):
                lines += [f"  call {text}: at {at}, {outcome} {status} after {took} ms" for at, took, outcome, status in calls]
        for table, rows in self.rows.items():
            lines += [f"  row in {table}: {row}" for row in rows if row[1] == n]
        if n:
            lines += [f"  client {record}" for record in self.records if f"n{record['index']}." == n]
            first, last = (Event(text).at for text in (job["log"][0], job["log"][-1])) if job["log"] else (0, 0)
            lines += [f"  fault {f['kind']} at {f['at']}..{f['end']}: {f['what']}" for f in self.faults
                      if f["end"] >= first and f["at"] <= last + 3000]
        return lines


def check(evidence):
    return Checker(evidence).check()
