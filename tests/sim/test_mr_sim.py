"""mr-sim checked from outside: every answer of its manual, over real sockets, without a sleep.

The program is $MR_SIM, else build/bin/mr-sim of this tree.
"""

import http.client
import json
import os
import pathlib
import socket
import struct
import subprocess
import threading

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("MR_SIM", str(ROOT / "build" / "bin" / "mr-sim"))
CHAT = "/v1/chat/completions"
PATIENCE = 20


class Sim:
    def __init__(self, *options):
        self.process = subprocess.Popen(
            [PROGRAM, "--listen", "127.0.0.1:0", *options], stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline().split()
        assert line and line[0] == "listening", "mr-sim did not start"
        host, port = line[1].rsplit(":", 1)
        self.address = (host, int(port))

    def request(self, method, path, body=None, headers=None, connection=None):
        c = connection or http.client.HTTPConnection(*self.address, timeout=PATIENCE)
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body, ensure_ascii=False).encode()
        c.request(method, path, body, headers or {})
        reply = c.getresponse()
        data = reply.read()
        if connection is None:
            c.close()
        return reply, data

    def control(self, method, path, body=None, status=200):
        reply, data = self.request(method, "/control/" + path, body)
        assert reply.status == status, data
        return json.loads(data)

    def rule(self, answer, match=None, **more):
        self.control("POST", "rules", [{"match": match or {}, "answer": answer, **more}])

    def ask(self, text="hello", **more):
        body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
        return self.request("POST", CHAT, body)

    def content(self, text="hello", **more):
        reply, data = self.ask(text, **more)
        assert reply.status == 200, data
        return json.loads(data)["choices"][0]["message"]["content"]

    def raw(self, text="hello", **more):
        """The connected socket after one request was sent."""
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **more})
        s = socket.create_connection(self.address, timeout=PATIENCE)
        s.sendall(
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        return s

    def stop(self):
        self.process.terminate()
        assert self.process.wait(timeout=PATIENCE) == 0
        self.process.stdout.close()


@pytest.fixture()
def sim():
    s = Sim("--latency", "0ms", "--stream-every", "0ms")
    yield s
    s.stop()


def read_all(s):
    """What comes until the end, and how it ended."""
    data = b""
    try:
        while part := s.recv(65536):
            data += part
    except ConnectionResetError:
        return data, "reset"
    return data, "end"


def events(data):
    lines = [x[6:] for x in data.decode().split("\n") if x.startswith("data: ")]
    return [x if x == "[DONE]" else json.loads(x) for x in lines]


def streamed(found):
    return "".join(
        c["delta"].get("content") or ""
        for e in found
        if e != "[DONE]"
        for c in e.get("choices", [])
    )


def test_plain_answer_has_the_envelope_and_usage(sim):
    reply, data = sim.ask("안녕 \"x\"\n")
    answer = json.loads(data)
    assert reply.status == 200 and reply.getheader("Content-Type") == "application/json"
    assert answer["object"] == "chat.completion" and answer["model"] == "m"
    assert "안녕 \"x\"\n" in answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


def test_same_request_same_content(sim):
    assert sim.content("one") == sim.content("one") != sim.content("two")


@pytest.mark.parametrize(
    "url,middle",
    [
        ("data:image/jpeg;base64,/9j/can", "무색페트병"),
        ("https://example.com/can/glass-1.jpg", "음료병"),
        ("https://example.com/what.jpg", "무색페트병"),
    ],
)
def test_image_is_classified(sim, url, middle):
    parts = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]
    assert json.loads(sim.content(parts))["middle"] == middle


def test_json_is_answered_when_asked_for(sim):
    assert "answer" in json.loads(sim.content("x", response_format={"type": "json_object"}))
    found = json.loads(sim.content("Answer in JSON with user_answer. 무색페트병"))
    assert found["insufficiencies"] == [] and "페트병" in found["user_answer"]


def test_schema_gets_an_instance(sim):
    schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["b", "a"]},
            "n": {"type": "integer", "minimum": 3},
            "list": {"type": "array", "minItems": 2, "items": {"type": "boolean"}},
            "note": {"type": "string", "maxLength": 4},
            "in": {"properties": {"x": {"type": "null"}}},
        },
    }
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    found = json.loads(sim.content("x", response_format=form))
    assert found == {"kind": "b", "n": 3, "list": [True, True], "note": "simu", "in": {"x": None}}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        {"messages": [{"role": "user", "content": "x"}]},
        {"model": "m"},
        {"model": "m", "messages": []},
        {"model": "m", "messages": [{"content": "x"}]},
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
    ],
)
def test_wrong_requests_are_refused(sim, body):
    reply, data = sim.request("POST", CHAT, body)
    assert reply.status == 400
    assert json.loads(data)["error"]["type"] == "invalid_request_error"


def test_keep_alive_and_chunked_body(sim):
    c = http.client.HTTPConnection(*sim.address, timeout=PATIENCE)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "y" * 90000}]})
    for _ in range(3):
        c.request(
            "POST", CHAT, iter([body[:7].encode(), body[7:40000].encode(), body[40000:].encode()]),
            encode_chunked=True, headers={"Transfer-Encoding": "chunked"},
        )
        reply = c.getresponse()
        assert reply.status == 200 and json.loads(reply.read())
    assert sim.request("POST", CHAT, body, connection=c)[0].status == 200
    c.close()
    assert len({x["connection"] for x in sim.control("GET", "journal")}) == 1


def test_request_byte_by_byte_and_two_at_once(sim):
    body = '{"model":"m","messages":[{"role":"user","content":"z"}]}'
    request = f"POST {CHAT} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    with socket.create_connection(sim.address, timeout=PATIENCE) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(request)):
            s.sendall(request[i : i + 1])
        s.sendall(request + request.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: close\r\n"))
        data, end = read_all(s)
    assert data.count(b"HTTP/1.1 200") == 3 and end == "end"


@pytest.mark.parametrize(
    "request_text,status",
    [
        (b"GET / HTTP/2.0\r\n\r\n", b"505"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 40000, b"431"),
    ],
)
def test_what_is_not_http_is_refused(sim, request_text, status):
    with socket.create_connection(sim.address, timeout=PATIENCE) as s:
        s.sendall(request_text)
        data, _ = read_all(s)
    assert data.split(b" ")[1] == status


def test_rules_in_order_times_and_match(sim):
    sim.rule({"text": "first"}, {"contains": "abc"}, times=2)
    sim.rule({"text": "then"}, {"contains": "abc", "model": "m*"})
    sim.rule({"text": "key"}, {"header": {"Authorization": "Bearer k"}})
    got = [sim.content("xabcx") for _ in range(3)]
    assert got == ["first", "first", "then"]
    body = {"model": "q", "messages": [{"role": "user", "content": "abc"}]}
    reply, data = sim.request("POST", CHAT, body, {"authorization": "Bearer k"})
    assert json.loads(data)["choices"][0]["message"]["content"] == "key"
    assert [x["used"] for x in sim.control("GET", "rules")] == [2, 1, 1]
    sim.control("DELETE", "rules")
    assert sim.content("abc").startswith("Simulated")


def test_each_third_request(sim):
    sim.rule({"text": "third"}, {"contains": "abc"}, every=3, times=2)
    sim.rule({"text": "other"})
    got = [sim.content("abc") for _ in range(10)]
    assert got == ["other", "other", "third"] * 2 + ["other"] * 4


@pytest.mark.parametrize(
    "rule,place",
    [
        ({"answer": {"txet": "x"}}, "/0/answer/txet"),
        ({"answer": {"latency": "5"}}, "/0/answer/latency"),
        ({"match": {"modle": "x"}, "answer": {}}, "/0/match/modle"),
        ({"answer": {"text": "x", "json": 1}}, "only one of"),
        ({"times": 0, "answer": {}}, "times"),
        ({"every": 0, "answer": {}}, "every"),
        ({}, "a rule is"),
    ],
)
def test_wrong_rules_are_refused_whole(sim, rule, place):
    reply, data = sim.request("POST", "/control/rules", [rule, {"answer": {"text": "never"}}])
    assert reply.status == 422 and place in json.loads(data)["error"]
    assert sim.control("GET", "rules") == []


def test_errors_are_shaped_and_carry_headers(sim):
    sim.rule({"status": 429, "headers": {"Retry-After": "2", "retry-after-ms": "150"}}, times=1)
    sim.rule({"status": 429, "code": "insufficient_quota"}, times=1)
    sim.rule({"status": 401}, times=1)
    sim.rule({"status": 500, "body": "oops", "headers": {"Content-Type": "text/plain"}}, times=1)
    reply, data = sim.ask()
    assert reply.status == 429 and json.loads(data)["error"]["code"] == "rate_limit_exceeded"
    assert (reply.getheader("Retry-After"), reply.getheader("retry-after-ms")) == ("2", "150")
    assert json.loads(sim.ask()[1])["error"]["type"] == "insufficient_quota"
    assert json.loads(sim.ask()[1])["error"]["code"] == "invalid_api_key"
    reply, data = sim.ask()
    assert (reply.status, data, reply.getheader("Content-Type")) == (500, b"oops", "text/plain")


def test_broken_answers(sim):
    sim.rule({"broken_json": True}, times=1)
    sim.rule({"bad_content": True}, times=1)
    sim.rule({"json": {"a": [1, 0.1]}, "usage": None, "finish_reason": "length"}, times=1)
    sim.rule({"oversize": 3_000_000}, times=1)
    with pytest.raises(ValueError):
        json.loads(sim.ask()[1])
    with pytest.raises(ValueError):
        json.loads(sim.content())
    answer = json.loads(sim.ask()[1])
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"a": [1, 0.1]}
    assert "usage" not in answer and answer["choices"][0]["finish_reason"] == "length"
    data = sim.ask()[1]
    assert len(data) == 3_000_000 and json.loads(data)


def test_cut_connections(sim):
    sim.rule({"reset": True}, times=1)
    sim.rule({"reset_after_bytes": 40}, times=1)
    sim.rule({"truncate": 10}, times=1)
    sim.rule({"close": True}, times=1)
    assert read_all(sim.raw()) == (b"", "reset")
    data, end = read_all(sim.raw())
    assert len(data) == 40 and end == "reset"
    data, end = read_all(sim.raw())
    head, _, body = data.partition(b"\r\n\r\n")
    assert len(body) == 10 and end == "end" and b"Content-Length: 10" not in head
    data, end = read_all(sim.raw())
    assert b"Connection: close" in data and end == "end"
    outcomes = [x["outcome"] for x in sim.control("GET", "journal")]
    assert outcomes == ["reset", "reset", "closed", "closed"]


def test_hang_and_client_close(sim):
    sim.rule({"hang": True})
    s = sim.raw("hangs")
    assert sim.control("GET", "wait?requests=1&contains=hangs")["in_flight"] == 1
    s.close()
    assert sim.control("GET", "wait?client_closed=1")["reached"]
    assert sim.control("GET", "wait?in_flight=0")["ended"] == 1
    assert sim.control("GET", "journal")[0]["outcome"] == "client_closed"


def test_hold_and_release_in_order(sim):
    sim.rule({"hold": True, "text": "late"})
    sockets = [sim.raw(str(i)) for i in range(3)]
    assert sim.control("GET", "wait?held=3")["max_in_flight"] == 3
    assert sim.control("POST", "release?count=1") == {"released": 1}
    assert sim.control("GET", "wait?ended=1")["held"] == 2
    assert sim.control("POST", "release") == {"released": 2}
    for s in sockets:
        assert b"late" in s.recv(65536)
        s.close()


def test_wait_ends_by_its_timeout(sim):
    found = sim.control("GET", "wait?requests=1&timeout_ms=1", status=504)
    assert found["reached"] is False


def test_wait_blocks_until_the_request_is_there(sim):
    found = []
    waiting = threading.Thread(
        target=lambda: found.append(sim.control("GET", "wait?requests=2&model=m"))
    )
    waiting.start()
    sim.ask()
    sim.ask()
    waiting.join(PATIENCE)
    assert found and found[0]["reached"]


def test_drip_and_stall(sim):
    sim.rule({"drip": {"bytes": 50, "every": "1ms"}, "text": "x" * 300}, times=1)
    sim.rule({"drip": {"bytes": 5, "every": "0ms", "stop_after": 20}}, times=1)
    assert sim.content() == "x" * 300
    s = sim.raw()
    data = b""
    while len(data.partition(b"\r\n\r\n")[2]) < 20:
        data += s.recv(65536)
    assert sim.control("GET", "stats")["in_flight"] == 1
    s.close()
    assert sim.control("GET", "wait?in_flight=0")["client_closed"] == 1


def test_stream(sim):
    reply, data = sim.ask("스트림", stream=True, stream_options={"include_usage": True})
    found = events(data)
    assert reply.getheader("Content-Type") == "text/event-stream"
    assert found[-1] == "[DONE]" and found[-2]["usage"]["total_tokens"] > 0
    assert found[-3]["choices"][0]["finish_reason"] == "stop"
    assert streamed(found) == "Simulated answer to: 스트림"


def test_stream_faults(sim):
    text = "0123456789" * 3
    sim.rule({"text": text, "stream_bytes": 10, "stream_cut": 2}, times=1)
    sim.rule({"text": text, "stream_bytes": 10, "stream_error": "overloaded"}, times=1)
    sim.rule({"text": text, "stream_bytes": 10, "stream_reset": 1}, times=1)
    sim.rule({"text": text, "stream": False}, times=1)
    found = events(sim.ask(stream=True)[1])
    assert streamed(found) == text[:20] and "[DONE]" not in found
    assert events(sim.ask(stream=True)[1])[-1]["error"]["message"] == "overloaded"
    data, end = read_all(sim.raw(stream=True))
    assert streamed(events(data)) == text[:10] and end == "reset"
    assert json.loads(sim.ask(stream=True)[1])["choices"][0]["message"]["content"] == text


def test_stream_paced_by_its_interval(sim):
    sim.rule({"text": "a" * 20, "stream_bytes": 1, "stream_every": "1ms"})
    assert streamed(events(sim.ask(stream=True)[1])) == "a" * 20


def test_other_paths(sim):
    sim.rule({"json": {"ok": 1}, "status": 202}, {"path": "/hook*"})
    sim.rule(
        {"body_base64": "AAECAw==", "headers": {"Content-Type": "image/jpeg"}}, {"path": "/a.jpg"}
    )
    assert sim.request("POST", "/svc/echo", {"a": 1})[1] == b'{"a": 1}'
    assert json.loads(sim.request("POST", "/echo", b"plain \xff")[1]).startswith("plain ")
    reply, data = sim.request("POST", "/hook/1", b"{}")
    assert reply.status == 202 and json.loads(data) == {"ok": 1}
    reply, data = sim.request("GET", "/a.jpg")
    assert data == bytes([0, 1, 2, 3]) and reply.getheader("Content-Type") == "image/jpeg"
    assert sim.request("GET", "/nothing")[0].status == 404
    assert sim.request("GET", "/control/none")[0].status == 404
    assert sim.request("DELETE", "/control/stats")[0].status == 405


def test_journal_redacts_and_goes_to_the_file(tmp_path):
    file = tmp_path / "journal.jsonl"
    s = Sim("--latency", "1ms..3ms", "--journal", str(file), "--journal-bodies", "64")
    headers = {"Authorization": "Bearer sk-secret", "X-Request-Id": "r1", "X-Api-Key": "sk-secret2"}
    body = {"model": "m", "messages": [{"role": "user", "content": "가" * 100}]}
    s.request("POST", CHAT, body, headers)
    live = s.control("GET", "journal?since=0")
    s.stop()
    (line,) = file.read_text().splitlines()
    entry = json.loads(line)
    assert "secret" not in line and "secret" not in json.dumps(live)
    assert entry["headers"]["authorization"] == "Bearer REDACTED"
    assert entry["headers"]["x-request-id"] == "r1"
    assert entry["text"] == "가" * 66 and entry["n"] == 1 and 1 <= entry["latency_ms"] <= 3
    assert live[0]["outcome"] == "answered"


def test_script_and_reset(tmp_path):
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"rules": [{"times": 1, "answer": {"text": "from the script"}}]}))
    s = Sim("--latency", "0ms", "--script", str(script))
    s.rule({"text": "posted"}, times=1)
    assert [s.content() for _ in range(2)] == ["posted", "from the script"]
    assert s.content().startswith("Simulated")
    assert s.control("POST", "reset")["requests"] == 0
    assert s.content() == "from the script"
    assert s.control("GET", "stats")["requests"] == 1
    s.stop()
    script.write_text('{"rules": [{"answer": {"nope": 1}}]}')
    bad = subprocess.run([PROGRAM, "--script", str(script)], capture_output=True, text=True)
    assert bad.returncode == 1 and "/0/answer/nope" in bad.stderr


def test_stop_with_requests_open():
    s = Sim("--latency", "1h")
    open_ones = [s.raw() for _ in range(5)]
    s.control("GET", "wait?in_flight=5")
    s.stop()
    for one in open_ones:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()


def test_usage_errors_exit_2():
    for options in (["--latency", "5"], ["extra"], ["--nope"]):
        assert subprocess.run([PROGRAM, *options], capture_output=True).returncode == 2
    told = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True)
    assert told.returncode == 0 and "/control/wait" in told.stdout
