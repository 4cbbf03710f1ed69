"""A client of the torture: `torture --client SETTINGS` submits its share of the jobs and cancels some of them.

It is what a careful caller is: a request without an answer, or with one that asks for patience (5xx, 429), is repeated
with the same key and input until there is one. What it was told goes into a file, a JSON line a job.

Standard input: `allow N` (jobs below number N may be submitted), `end` (no more come). Standard output: now and then how
many submissions are answered, a number a line; at the end, when all is answered, the statuses that it got.
"""

import collections
import heapq
import http.client
import json
import socket
import sys
import threading
import time

import rig as rigs
import torture_jobs

THREADS = 10
ANSWER_S = 8  # after this a request is repeated
AGAIN = {0, 429, 500, 502, 503, 504}


class Way:
    """One way to a front: lighttpd on a connection that is kept, or the FastCGI socket of the other host."""

    def __init__(self, port, path):
        self.port, self.path, self.connection = port, path, None

    def ask(self, method, path, body, headers):
        """(status, JSON or None); status 0: no answer."""
        try:
            return self.fcgi(method, path, body, headers) if self.path else self.http(method, path, body, headers)
        except (OSError, http.client.HTTPException, ValueError, IndexError):
            self.close()
            return 0, None

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def http(self, method, path, body, headers):
        if not self.connection:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        self.connection.request(method, path, body, headers)
        reply = self.connection.getresponse()
        text = reply.read()
        is_json = "json" in reply.headers.get("Content-Type", "")
        return reply.status, json.loads(text) if is_json else None

    def fcgi(self, method, path, body, headers):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(ANSWER_S)
            s.connect(self.path)
            values = {"REQUEST_METHOD": method, "REQUEST_URI": path, "SCRIPT_NAME": path, "QUERY_STRING": "",
                      "SERVER_PROTOCOL": "HTTP/1.1", "GATEWAY_INTERFACE": "CGI/1.1", "CONTENT_LENGTH": str(len(body)),
                      "CONTENT_TYPE": "application/json"}
            for name, value in headers.items():
                if name != "Content-Type":
                    values["HTTP_" + name.upper().replace("-", "_")] = value
            s.sendall(rigs.fcgi_record(1, b"\0\1\0\0\0\0\0\0") + rigs.fcgi_params(values)
                      + (rigs.fcgi_record(5, body) if body else b"") + rigs.fcgi_record(5, b""))
            reply = rigs.fcgi_reply(s)
        return reply.status, reply.json


class Client:
    def __init__(self, settings):
        self.__dict__.update(settings)  # seed, port, direct, first, stride, file, patience
        self.changed = threading.Condition()
        self.allowed, self.is_over = 0, False
        self.next = self.first
        self.cancels, self.open, self.answered = [], 0, 0
        self.statuses = collections.Counter()
        self.records = open(self.file, "w")

    def ways(self):
        """Of a thread: lighttpd, and straight to the other host where there is one."""
        first = Way(self.port, None)
        return first, Way(None, self.direct) if self.direct else first

    def until_answered(self, way, *request):
        limit, tries, pause = time.monotonic() + self.patience, 0, 0.02
        while True:
            status, body = way.ask(*request)
            tries += 1
            with self.changed:
                # A 500 of lighttpd (the front was killed) has no JSON; Millrace's own would be a fault of its own.
                self.statuses["500 of Millrace" if status == 500 and body is not None else str(status)] += 1
            if status not in AGAIN or time.monotonic() > limit:
                return status, body, tries
            threading.Event().wait(pause)
            pause = min(pause * 2, 0.5)

    def write(self, record):
        with self.changed:
            self.records.write(json.dumps(record) + "\n")
            self.open -= 1
            self.changed.notify_all()

    def submit(self, ways, index):
        job = torture_jobs.job(self.seed, index)
        headers = {"Content-Type": "application/json"}
        if job["key"]:
            headers["Idempotency-Key"] = job["key"]
        body = json.dumps(job["body"]).encode()
        began = time.time()
        status, reply, tries = self.until_answered(ways[job["direct"]], "POST", "/api/v1/jobs", body, headers)
        record = {"index": index, "status": status, "tries": tries, "began": int(began * 1000), "at": int(time.time() * 1000),
                  "id": reply.get("id") if isinstance(reply, dict) else None, "cancel": None}
        if status not in (200, 202):
            record["reply"] = reply
        with self.changed:
            self.answered += 1
            if self.answered % 10 == 0:
                print(self.answered, flush=True)
        if status in (200, 202) and job["cancel"] is not None:
            with self.changed:
                heapq.heappush(self.cancels, (time.monotonic() + job["cancel"], index, record))
                self.changed.notify_all()
        else:
            self.write(record)

    def submitting(self):
        ways = self.ways()
        while True:
            with self.changed:
                while self.next >= self.allowed and not self.is_over:
                    self.changed.wait()
                if self.next >= self.allowed:
                    return
                index, self.next = self.next, self.next + self.stride
                self.open += 1
            self.submit(ways, index)

    def cancelling(self):
        ways = self.ways()
        while True:
            with self.changed:
                while not self.cancels or self.cancels[0][0] > time.monotonic():
                    if self.is_over and self.next >= self.allowed and self.open == 0:
                        return
                    self.changed.wait(max(0.0, self.cancels[0][0] - time.monotonic()) if self.cancels else None)
                record = heapq.heappop(self.cancels)[2]
            record["cancel_began"] = int(time.time() * 1000)
            status, _, tries = self.until_answered(
                ways[record["index"] % 2], "POST", f"/api/v1/jobs/{record['id']}/cancel", b"", {"Content-Length": "0"})
            record["cancel"], record["cancel_tries"], record["cancel_at"] = status, tries, int(time.time() * 1000)
            self.write(record)

    def run(self):
        threads = [threading.Thread(target=self.submitting) for _ in range(THREADS)]
        threads += [threading.Thread(target=self.cancelling) for _ in range(2)]
        for thread in threads:
            thread.start()
        for line in sys.stdin:
            word, _, number = line.strip().partition(" ")
            with self.changed:
                if word == "allow":
                    self.allowed = int(number)
                self.is_over = word == "end"
                self.changed.notify_all()
            if word == "end":
                break
        for thread in threads:
            thread.join()
        self.records.close()
        print(json.dumps(self.statuses), flush=True)


def main(settings):
    Client(json.loads(settings)).run()
