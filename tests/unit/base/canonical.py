#!/usr/bin/python3
"""Writes canonical.json: JSON texts, their canonical form and the job id that follows from it.

What Millrace calls canonical JSON is what Python's json.dumps gives with the arguments below; the
tests of json.c and id.c compare with this file. Run it with --check to compare without writing.
"""
import hashlib
import json
import os
import struct
import sys
import uuid

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "canonical.json")
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "millrace.invalid")
PIPELINE = "waste-sorting"

TEXTS = [
    "null",
    " true ",
    "0",
    "-0",
    "12345678901234567",
    "[9223372036854775807,-9223372036854775808]",
    "[1,1.0,-0.0,10e-1]",
    "[0.1,0.2,0.30000000000000004,1e22,1e23]",
    "[1e15,123456789012345680.0,1e16,1.5e16,9999999999999998.0]",
    "[0.0001,0.00001,1e-7,0.00012345,-1.25e-10]",
    "[5e-324,2.2250738585072014e-308,1.7976931348623157e308,1e-400]",
    "[5.684341886080802e-14,9.5367431640625e-07,4.35,100.0,0.5]",
    '""',
    '"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\\u007f"',
    '"\\u00e9\\ud83d\\ude00 é 😀 한국어 \\u2028"',
    "{}",
    '{"b":1,"a":2,"B":3,"":4,"aa":5,"é":6,"z":7}',
    '{"\\ue000":1,"\\ud800\\udc00":2,"a b":3,"a\\"b":4,"a\\nb":5}',
    '{"z":{"y":[{"b":[],"a":{}},[[]]],"x":null},"a":[true,false,{"k":{"j":1e2}}]}',
    '{ "image_url" : "https://example.test/a?b=c&d=%20", "user_id":"u1", "n" : 3, "score":0.75 }',
]


def canonical(text):
    return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def job_id(text):
    head = struct.pack(">Q", len(PIPELINE)) + PIPELINE.encode()
    # Python's uuid5 takes text only (before 3.12), and the name holds bytes that are no text.
    name = head + b"i" + canonical(text).encode()
    return str(uuid.UUID(bytes=hashlib.sha1(NAMESPACE.bytes + name).digest()[:16], version=5))


def main():
    vectors = [{"text": t, "canonical": canonical(t), "id": job_id(t)} for t in TEXTS]
    content = json.dumps(vectors, indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv[1:]:
        with open(FILE, encoding="utf-8") as file:
            same = file.read() == content
        print("canonical.json is", "up to date" if same else "out of date")
        return 0 if same else 1
    with open(FILE, "w", encoding="utf-8") as file:
        file.write(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
