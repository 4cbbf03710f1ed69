"""What the torture submits: pipelines, jobs made from a seed, and what each of them must come to.

A job is known by its `n` (`n12.`), which stands in its input, in the prompts of its stages ("first of n12."), in its
rows, and in the inputs of its children, so that every trace it leaves anywhere can be laid to it.
"""

import random
import sqlite3
import uuid

ENDPOINT = "openai"
RETRY = {"attempts": 25, "backoff": "20ms", "max_backoff": "200ms"}
# Long, for faults delay everything; nothing may end by time alone.
PATIENT = {"timeout": "20m", "timeout_first_byte": "10m", "timeout_idle": "10m"}
DATABASE = "effects.db"
TABLES = (
    "CREATE TABLE IF NOT EXISTS keyed (id TEXT PRIMARY KEY, n TEXT NOT NULL, what TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS unkeyed (id TEXT NOT NULL, n TEXT NOT NULL, what TEXT NOT NULL)",
)
CANCELLED_SHARE = 0.06
SLOW_SHARE = 0.06


def model(name, queue=None, needs=None, when=None, model="m"):
    stage = {
        "name": name, "plugin": "llm", "retry": RETRY, "timeout": PATIENT["timeout"],
        "options": {"endpoint": ENDPOINT, "model": model, "timeout_first_byte": PATIENT["timeout_first_byte"],
                    "timeout_idle": PATIENT["timeout_idle"],
                    "messages": [{"role": "user", "content": f"{name} of {{{{ .input.n }}}}"}]},
    }
    if queue:
        stage["queue"] = queue
    if needs is not None:
        stage["needs"] = needs
    if when:
        stage["when"], stage["else"] = when, {"text": "skipped"}
    return stage


def row(what, table="keyed", name="row"):
    """A row of (id of the job, n, what): in `keyed` a second one changes nothing, in `unkeyed` it shows."""
    conflict = " ON CONFLICT DO NOTHING" if table == "keyed" else ""
    return {"name": name, "plugin": "sql", "retry": RETRY, "timeout": "10m", "options": {
        "dsn": f"sqlite:{DATABASE}", "statement": f"INSERT INTO {table} (id, n, what) VALUES (:id, :n, :what){conflict}",
        "params": {"id": "{{ .job.id }}", "n": "{{ .input.n }}", "what": what}}}


def reward(name, *targets):
    return {"name": name, "plugin": "reward", "timeout": "30m", "retry": RETRY, "options": {"targets": list(targets)}}


N = {"n": "{{ .input.n }}"}
CHILD_RESULT = {"id": "{{ .job.id }}", "n": "{{ .input.n }}"}
PIPELINES = {
    # A chain in one queue, one stage of which is skipped for most.
    "chain": {
        "stages": [model("first"), model("slow", when=".input.slow"),
                   {"name": "middle", "plugin": "transform", "options": {"output": {"n": "{{ .input.n }}", "slow": "{{ .slow.text }}"}}},
                   model("second"), row("chain")],
        "result": {"n": "{{ .middle.n }}", "slow": "{{ .middle.slow }}", "first": "{{ .first.text }}", "second": "{{ .second.text }}"},
    },
    # Three branches in three queues, and a join.
    "fan": {
        "stages": [{"name": "begin", "plugin": "echo"},
                   model("left", queue="left", needs=["begin"]), model("right", queue="right", needs=["begin"]),
                   model("straight", needs=["begin"]),
                   {"name": "join", "plugin": "transform", "needs": ["left", "right", "straight"], "options": {"output": {
                       "left": "{{ .left.text }}", "right": "{{ .right.text }}", "straight": "{{ .straight.text }}"}}},
                   row("fan", "unkeyed", "tally"), row("fan")],
        "result": {"n": "{{ .input.n }}", "join": "{{ .join }}"},
    },
    # A call and its child.
    "caller": {
        "stages": [model("first"),
                   reward("ask", {"name": "child", "mode": "call", "pipeline": "child", "timeout": "25m", "input": N}),
                   row("caller")],
        "result": {"n": "{{ .input.n }}", "child": "{{ .ask.child }}"},
    },
    "child": {"stages": [model("answer"), row("child")], "result": {**CHILD_RESULT, "said": "{{ .answer.text }}"}},
    # Two dispatches, to an id that is declared and to one that follows from the parent.
    "sender": {
        "stages": [model("first"),
                   reward("send", {"name": "kid", "mode": "dispatch", "pipeline": "kid", "id": "kid:{{ .input.n }}", "input": N},
                          {"name": "kin", "mode": "dispatch", "pipeline": "kin", "input": N}),
                   row("sender")],
        "result": {"n": "{{ .input.n }}", "kid": "{{ .send.kid }}", "kin": "{{ .send.kin }}"},
    },
    "kid": {"stages": [model("play", queue="left"), row("kid")], "result": {**CHILD_RESULT, "said": "{{ .play.text }}"}},
    "kin": {"stages": [row("kin"), row("kin", "unkeyed", "tally")], "result": CHILD_RESULT},
    # A model that fails at times.
    "shaky": {
        "stages": [model("moody", model="moody"), row("shaky", "unkeyed", "tally"), model("second"), row("shaky")],
        "result": {"n": "{{ .input.n }}", "moody": "{{ .moody.text }}", "second": "{{ .second.text }}"},
    },
    # Waits, and does nothing else.
    "nap": {
        "stages": [{"name": "nap", "plugin": "sleep", "queue": "right", "options": {"for": "300ms"}}, row("nap")],
        "result": {"n": "{{ .input.n }}"},
    },
}
CHILDREN = {"caller": {"child": "child"}, "sender": {"kid": "kid", "kin": "kin"}}  # pipeline: {target: its pipeline}
ROWS = {"fan": ("tally",), "kin": ("tally",), "shaky": ("tally",)}  # stages that write to `unkeyed`
MIX = (("chain", 38), ("fan", 15), ("caller", 15), ("sender", 14), ("shaky", 10), ("nap", 8))
QUEUES = ("default", "left", "right")

# What the simulator does: the moody model fails at times, and the slow stage is slow.
RULES = [
    {"match": {"model": "moody"}, "every": 3, "answer": {"status": 500}},
    {"match": {"model": "moody"}, "every": 5, "answer": {"reset": True}},
    {"match": {"model": "moody"}, "every": 11, "answer": {"status": 429, "headers": {"retry-after-ms": "60"}}},
    {"match": {"contains": "slow of "}, "answer": {"latency": "400ms..3000ms"}},
]


def prepare(folder):
    with sqlite3.connect(folder / DATABASE) as db:
        db.execute("PRAGMA journal_mode=WAL")
        for table in TABLES:
            db.execute(table)


def rows(folder):
    """{table: [(id, n, what)]}"""
    with sqlite3.connect(folder / DATABASE) as db:
        return {t: db.execute(f"SELECT id, n, what FROM {t}").fetchall() for t in ("keyed", "unkeyed")}


def job(seed, index):
    """Job number `index` of a seed: what is submitted, by which way, and when it is cancelled (s after its 202, or None)."""
    dice = random.Random(f"{seed}/{index}")
    pipeline = dice.choices([name for name, _ in MIX], [weight for _, weight in MIX])[0]
    n = f"n{index}."
    value = {"n": n}
    if pipeline == "chain":
        value["slow"] = dice.random() < SLOW_SHARE / 0.38
    body = {"pipeline": pipeline, "input": value}
    if dice.random() < 0.1:
        body["delay"] = f"{dice.randint(50, 3000)}ms"
    if dice.random() < 0.3:
        body["deadline"] = "6h"
    if dice.random() < 0.2:
        body["priority"] = dice.choice(("high", "low"))
    if dice.random() < 0.1:
        body["metadata"] = {"n": n}
    return {
        "n": n, "pipeline": pipeline, "body": body,
        "key": f"key-{seed}-{index}" if dice.random() < 0.5 else None,
        "direct": dice.random() < 0.25,
        "cancel": dice.choice((0, dice.uniform(0, 0.2), dice.uniform(0, 2))) if dice.random() < CANCELLED_SHARE else None,
    }


def said(stage, n):
    return f"Simulated answer to: {stage} of {n}"


def result(job, children):
    """What a completed job's result is; `children`: {target: id} of the ids found for it (CHILDREN)."""
    n = job["n"]
    match job["pipeline"]:
        case "chain":
            slow = said("slow", n) if job["body"]["input"]["slow"] else "skipped"
            return {"n": n, "slow": slow, "first": said("first", n), "second": said("second", n)}
        case "fan":
            return {"n": n, "join": {side: said(side, n) for side in ("left", "right", "straight")}}
        case "caller":
            return {"n": n, "child": child_result("child", children["child"], n)}
        case "sender":
            return {"n": n, "kid": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"kid:{n}")), "kin": children["kin"]}
        case "shaky":
            return {"n": n, "moody": said("moody", n), "second": said("second", n)}
        case "nap":
            return {"n": n}


def child_result(pipeline, id, n):
    stage = {"child": "answer", "kid": "play"}.get(pipeline)
    return {"id": id, "n": n, **({"said": said(stage, n)} if stage else {})}
