"""What fault tests count: who was asked how often, and what a job's log tells.

Their pipeline is `books`: model, row, model, row. The first row goes into a table without a key, so a second run of that
stage shows as a second row; what the model was asked begins with "first of N" or "second of N".
"""

import collections
import sqlite3

import samples

TABLE = "CREATE TABLE IF NOT EXISTS entries (n TEXT NOT NULL, what TEXT NOT NULL)"
RETRY = {"attempts": 5, "backoff": "50ms", "max_backoff": "200ms"}


def row(name, what):
    return {"name": name, "plugin": "sql", "retry": RETRY, "options": {
        "dsn": "sqlite:books.db", "statement": "INSERT INTO entries (n, what) VALUES (:n, :what)",
        "params": {"n": "{{ .input.n }}", "what": what}}}


BOOKS = {
    "stages": [
        samples.model("first", "first of {{ .input.n }}", retry=RETRY),
        row("noted", "noted"),
        samples.model("second", "second of {{ .input.n }}", retry=RETRY),
        row("booked", "booked"),
    ],
    "result": {"n": "{{ .input.n }}", "second": "{{ .second.text }}"},
}


def prepare(rig):
    """The table must be there before the first job."""
    with sqlite3.connect(rig.folder / "pipelines" / "books.db") as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(TABLE)


def submit(rig, count, name="n"):
    """{n: id} of `count` jobs."""
    return {f"{name}{i}.": rig.submit("books", {"n": f"{name}{i}."})["id"] for i in range(count)}


def asked(sim):
    """How often each of "first of N", "second of N" was asked."""
    return collections.Counter(e["text"] for e in sim.journal())


def rows(rig):
    with sqlite3.connect(rig.folder / "pipelines" / "books.db") as db:
        return collections.Counter(db.execute("SELECT n, what FROM entries").fetchall())


def assert_done(rig, jobs, repeated=(), patience=60):
    """Every job completed with its result; each event and each row once; nothing asked twice but "second of N" for the
    N in `repeated` (what was in flight when the fault came)."""
    for n, id in jobs.items():
        job = rig.wait_job(id, patience=patience)
        assert job["status"] == "completed", job
        assert job["result"] == {"n": n, "second": f"Simulated answer to: second of {n}"}, job
        events = rig.until(lambda: rig.events(id).json.get("data"))  # 503 while the front has no connection
        assert [e["id"] for e in events] == list(range(1, len(events) + 1))
        kinds = collections.Counter((e["event"], e["data"].get("stage")) for e in events)
        for stage in ("first", "noted", "second", "booked"):
            assert kinds[("stage.completed", stage)] == 1, (n, kinds)
        assert kinds[("job.completed", None)] == 1, (n, kinds)
    counts = asked(rig.sim)
    for n in jobs:
        assert counts[f"first of {n}"] == 1, (n, counts)
        most = 2 if n in repeated else 1
        assert 1 <= counts[f"second of {n}"] <= most, (n, counts[f"second of {n}"], most)
    written = rows(rig)
    for n in jobs:
        assert written[(n, "noted")] == 1 and written[(n, "booked")] == 1, (n, written)
