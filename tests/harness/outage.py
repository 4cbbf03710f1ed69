"""What tests of Redis's troubles share: how time passes, lanes as Redis has them, what processes use meanwhile."""

import threading
import time

import rig as rigs


def let_pass(rig, seconds):
    """Until that much time is over: the outage itself is what is tested."""
    end = time.monotonic() + seconds
    rig.until(lambda: time.monotonic() >= end, patience=seconds + rigs.PATIENCE)


def lanes(rig, id):
    """The lanes of a job: [(state, fence, takeovers)]."""
    rows = rig.redis.hgetall(f"mr:{{0}}:job:{id}")
    found = [text.split(" ") for name, text in rows.items() if name.startswith("l:")]
    return [(words[0], words[4], int(words[7])) for words in found]


def assert_no_takeovers(rig, ids, fences=None):
    """Every job still has its one running lane, nobody took it over."""
    for id in ids:
        assert [(state, takeovers) for state, _, takeovers in lanes(rig, id)] == [("r", 0)], (id, lanes(rig, id))
        if fences:
            assert lanes(rig, id)[0][1] == fences[id]
    assert "taken over" not in rig.daemon.tail(100000)


def refused(rig, title, **value):
    """Submits, expects 503 with that title, words of its own and Retry-After; the answer."""
    reply = rig.submit("ask", {"say": "refused", **value}, status=None)
    assert reply.status == 503, reply
    assert reply.json["type"] == "urn:millrace:problem:store-unavailable", reply
    assert reply.json["title"] == title, reply
    assert reply.json["detail"] and int(reply.header("Retry-After")) >= 1, reply
    return reply


class Usage:
    """CPU time, memory and log lines of the daemon's processes from here on."""

    def __init__(self, rig):
        self.rig, self.pids = rig, rig.children()
        self.began = time.monotonic()
        self.cpu = {pid: rigs.cpu_seconds(pid) for pid in self.pids}
        self.rss = {pid: rigs.rss_bytes(pid) for pid in self.pids}
        self.lines = len(rig.daemon.lines)

    def assert_calm(self, lines, share=0.3, grown=64 << 20):
        """No busy loop, no growth, no flood: bounds that a busy machine keeps."""
        passed = time.monotonic() - self.began
        for pid in self.pids:
            used = rigs.cpu_seconds(pid) - self.cpu[pid]
            assert used < share * passed, (pid, used, passed)
            assert rigs.rss_bytes(pid) - self.rss[pid] < grown, pid
        new = self.rig.daemon.lines[self.lines:]
        assert len(new) <= lines, (len(new), new[:200])


class Background(threading.Thread):
    """Runs a function beside the test; result() waits for it and raises what it raised."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.function, self.args, self.value, self.error = function, args, None, None
        self.start()

    def run(self):
        try:
            self.value = self.function(*self.args)
        except BaseException as error:  # told to who asks for the result
            self.error = error

    def result(self, patience=2 * rigs.PATIENCE):
        self.join(patience)
        assert not self.is_alive(), "still running"
        if self.error:
            raise self.error
        return self.value
