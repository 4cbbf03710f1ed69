"""Request bodies as web servers and clients send them: chunked, slow, huge, short, none; straight over FastCGI too."""

import json
import select
import socket
import threading

import rig as rigs
import samples

RIG = {"pipelines": {"echo": samples.ECHO}}


def body(value):
    return json.dumps({"pipeline": "echo", "input": value}).encode()


def test_chunked(rig):
    data = body({"chunked": "x" * 5000})
    pieces = (data[i : i + 700] for i in range(0, len(data), 700))
    reply = rig.http("POST", "/api/v1/jobs", pieces, {"Content-Type": "application/json", "Transfer-Encoding": "chunked",
                                                      "Prefer": "wait=10"}, chunked=True)
    assert reply.status == 200 and reply.json["result"] == {"chunked": "x" * 5000}, reply


def test_curl_chunked_and_expect(rig):
    big = json.dumps({"pipeline": "echo", "input": {"big": "y" * 300000}})
    path = rig.folder / "big.json"
    path.write_text(big)
    code, out, err = rig.curl(rig.url("/api/v1/jobs"), "-H", "Content-Type: application/json", "-H", "Prefer: wait=10",
                              "-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue", "--data-binary", f"@{path}")
    assert code == 0, err
    assert json.loads(out)["status"] == "completed", out[:300]


def test_huge_but_allowed(rig):
    """3 MiB of input: parsed on a thread, answered, and readable again."""
    value = {"items": [{"n": i, "text": "é" * 500} for i in range(800)]}
    reply = rig.http("POST", "/api/v1/jobs", body(value), {"Content-Type": "application/json"})
    assert reply.status == 202, reply
    assert reply.json["id"] == rigs.job_id("echo", value)
    # The output is held to limits.output_max (1 MiB): the echo of it fails, permanently, and says so.
    small = {"items": "z" * 900000}
    done = rig.run("echo", small)
    assert done["status"] == "completed" and done["result"] == small


def test_too_large_is_413(rig):
    reply = rig.http("POST", "/api/v1/jobs", body("a" * (8 * 1024 * 1024 + 10)), {"Content-Type": "application/json"})
    assert reply.status == 413, reply
    assert reply.json["type"] == "urn:millrace:problem:payload-too-large"
    assert rig.get("/healthz").status == 200


def test_too_large_chunked_is_413(rig):
    data = body("a" * (8 * 1024 * 1024 + 10))
    pieces = (data[i : i + 65536] for i in range(0, len(data), 65536))
    reply = rig.http("POST", "/api/v1/jobs", pieces, {"Transfer-Encoding": "chunked"}, chunked=True)
    assert reply.status == 413, reply


def test_slow_body_through_the_web_server(rig):
    """A client that sends a byte at a time holds nobody up."""
    data = body({"slow": 1})
    with socket.create_connection(("127.0.0.1", rig.port), timeout=rigs.PATIENCE) as s:
        s.sendall(b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nPrefer: wait=10\r\n"
                  b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(data))
        for i in range(len(data)):
            s.sendall(data[i : i + 1])
            assert i % 10 or rig.get("/healthz").status == 200
        answer = b""
        while piece := s.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200"), answer


def test_fcgi_content_length_missing_or_minus_one(rig):
    for length in ("", "-1"):
        reply = rig.fcgi("POST", "/api/v1/jobs", body({"length": length}), {"Prefer": "wait=10"}, length=length)
        assert reply.status == 200 and reply.json["result"] == {"length": length}, reply


def test_fcgi_body_that_is_not_as_long_as_it_said(rig):
    data = body({"short": 1})
    for length in (len(data) + 5, len(data) - 5):
        reply = rig.fcgi("POST", "/api/v1/jobs", data, length=str(length))
        assert reply.status == 400, (length, reply)


def test_fcgi_half_a_request_and_gone(rig):
    """Connections that break off in the middle leave nothing behind."""
    for _ in range(30):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(rig.socket)
            s.sendall(rigs.fcgi_record(1, b"\0\1\0\0\0\0\0\0") + rigs.fcgi_record(4, b"\x0e\x04REQUEST_METHODPO")[:-2])
    assert rig.get("/healthz").status == 200


def test_fcgi_half_requests_do_not_hold_up_others(rig):
    """Fifty connections that sent half a request (there are 64 threads): others are served at once. Eighty: as soon as the
    front has ended the first ones by its deadline of ten seconds."""
    held = []
    for patience, count in ((5, 50), (15, 30)):
        for _ in range(count):
            s = socket.socket(socket.AF_UNIX)
            s.connect(rig.socket)
            s.sendall(rigs.fcgi_record(1, b"\0\1\0\0\0\0\0\0"))
            held.append(s)
        replies = []
        threads = [threading.Thread(target=lambda: replies.append(rig.get("/healthz").status)) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(patience)
        assert replies == [200] * 8, (count, replies)
    for s in held:
        s.close()


def test_fcgi_garbage(rig):
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"\xff" * 64, b"\x01\x01"):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(rigs.PATIENCE)
            s.connect(rig.socket)
            s.sendall(junk)
            s.shutdown(socket.SHUT_WR)
            select.select([s], [], [], 15)
    assert rig.get("/healthz").status == 200
    assert len(rig.children("front")) == 1


def test_input_texts_survive_exactly(rig):
    value = {"int": 9007199254740993, "neg": -9223372036854775808, "real": 0.1, "emoji": "🧪", "한글": ["", {}, []],
             "esc": "\\\"/\b\f\n\r\t\u001f\u2028"}
    done = rig.run("echo", value)
    assert done["result"] == value
    assert b"9007199254740993" in rig.get(f"/api/v1/jobs/{done['id']}/result").body
