"""`python hostile.py KIND`: returns its first argument, and for one of three rows does what none should.

It takes the standard library alone, so that it starts fast.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]
HELLO = {
    "message": "hello",
    "protocol": 1,
    "name": "hostile",
    "holds": False,
    "operations": {"ms_deform_attn": None},
    "devices": ["cpu"],
    "dtypes": ["float32"],
    "features": ["backward"],
}
NESTED = '{"list": [' * 5000 + "]}" * 5000


def say(message: Any) -> None:
    sys.stdout.write((message if isinstance(message, str) else json.dumps(message)) + "\n")
    sys.stdout.flush()


def done(message: Message) -> Message:
    """The answer of one that returns its first argument: for a backward pass the first incoming gradient."""
    wanted = message["steps"][-1].get("gradients") or message["steps"][-1]["arguments"]["dict"][0][1]
    name = wanted["tensor"] if "tensor" in wanted else wanted["list"][0]["tensor"]
    given = next(each for each in message["tensors"] if each["id"] == name)
    content = read(file_of(message, "in"), given["storage"]) if message["storages"][given["storage"]] else b""
    write(file_of(message, "out"), {"r": content})
    result = {**given, "id": "result", "storage": "r", "requires_grad": True}
    results: list[Any] = [{"tensor": "result"}]
    if len(message["steps"]) > 1:
        results.append({"list": [{"tensor": "result"}]})
    return {
        "message": "done",
        "id": message["id"],
        "results": results,
        "tensors": [result],
        "storages": {"r": len(content)},
    }


def file_of(message: Message, end: str) -> Path:
    return Path(message["folder"]) / f"{message['id']}.{end}"


def read(path: Path, name: str) -> bytes:
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    first, last = json.loads(data[8 : 8 + size])[name]["data_offsets"]
    return data[8 + size :][first:last]


def write(path: Path, contents: dict[str, bytes]) -> None:
    about, first = {}, 0
    for name, content in contents.items():
        about[name] = {"dtype": "U8", "shape": [len(content)], "data_offsets": [first, first + len(content)]}
        first += len(content)
    header = json.dumps(about).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"".join(contents.values()))


def with_result(**changed: Any) -> Callable[[Message], None]:
    def answer(message: Message) -> None:
        right = done(message)
        right["tensors"][0] |= changed
        say(right)

    return answer


def with_answer(**changed: Any) -> Callable[[Message], None]:
    return lambda message: say({**done(message), **changed})


def with_file(make: Callable[[Path], Any]) -> Callable[[Message], None]:
    """The right answer, and another file."""

    def answer(message: Message) -> None:
        right, path = done(message), file_of(message, "out")
        content = path.read_bytes()
        path.unlink()
        path.with_suffix(".old").write_bytes(content)
        make(path)
        say(right)

    return answer


def twice(message: Message) -> None:
    answer = done(message)
    say(answer)
    say(answer)


def writing(message: Message) -> None:
    """The right answer, and zeros in its argument."""
    right = done(message)
    content = read(file_of(message, "out"), "r")
    write(file_of(message, "out"), {"r": content, "s0": bytes(len(content))})
    say({**right, "storages": {"r": len(content), "s0": len(content)}})


def asleep(message: Message) -> None:
    time.sleep(600)


KINDS: dict[str, Callable[[Message], Any]] = {
    "garbage": lambda message: say("verdict: pass"),
    "half-a-line": lambda message: (sys.stdout.write('{"message": "done"'), sys.stdout.flush(), os._exit(0)),
    "no-object": lambda message: say("[1]"),
    "other-id": lambda message: say({**done(message), "id": 10_000}),
    "no-id": lambda message: say({"message": "done"}),
    "twice": twice,
    "dying": lambda message: os.kill(os.getpid(), 11),
    "exiting": lambda message: os._exit(3),
    "hanging": asleep,
    "other-message": with_answer(message="pass"),
    "no-results": with_answer(results=[]),
    "nested": lambda message: say(f'{{"message": "done", "id": {message["id"]}, "results": [{NESTED}]}}'),
    "unknown-tensor": with_answer(results=[{"tensor": "t99"}]),
    "tensor-without-a-name": with_answer(results=[{"tensor": []}]),
    "no-coded-value": with_answer(results=[[1, 2]]),
    "oversized": with_answer(storages={"r": 1 << 50}),
    "large-for-its-file": with_answer(storages={"r": 1 << 34}),
    "negative-size": with_answer(storages={"r": -1}),
    "no-size": with_answer(storages={"r": "many"}),
    "no-file": with_file(lambda path: None),
    "truncated": with_file(lambda path: path.write_bytes(path.with_suffix(".old").read_bytes()[:-1])),
    "empty-file": with_file(lambda path: path.write_bytes(b"")),
    "endless-header": with_file(lambda path: path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")),
    "too-large-file": with_file(lambda path: path.write_bytes(b" " * (1 << 20))),
    "pipe-for-a-file": with_file(lambda path: os.mkfifo(path)),
    "link-for-a-file": with_file(lambda path: path.symlink_to(path.with_suffix(".old"))),
    "unknown-dtype": with_result(dtype="float8"),
    "beyond-its-storage": with_result(offset=1),
    "huge-by-strides": with_result(shape=[1 << 20, 1 << 20], stride=[0, 0]),
    "negative-stride": with_result(stride=[-1, 1, 1, 1]),
    "fractional-shape": with_result(shape=[1.5]),
    "one-stride-too-few": with_result(stride=[1]),
    "changing-what-is-not-its": with_answer(storages={"r": 48, "s0": 1}),
}

# What is an answer, whatever else it is.
ANSWERS: dict[str, Callable[[Message], Any]] = {
    "writing": writing,
    "constant": with_result(requires_grad=False),
    "returning-its-argument": with_answer(results=[{"tensor": "t0"}], tensors=[], storages={}),
    "refusing": lambda message: say({"message": "refused", "id": message["id"], "reason": "three rows are too many"}),
}


def main(kind: str) -> None:
    say(HELLO)
    if kind == "never-reading":
        asleep({})
    for line in sys.stdin:
        message = json.loads(line)
        if message["message"] == "stop":
            return
        rows = message["tensors"][0]["shape"][0] if message["tensors"] else 0
        {**KINDS, **ANSWERS}[kind](message) if rows == 3 else say(done(message))


if __name__ == "__main__":
    main(sys.argv[1])
