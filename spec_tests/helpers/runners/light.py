"""`python light.py KIND`: returns its first argument, and breaks one rule of the protocol, or none."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))
from helpers.runners.hostile import HELLO, Message, done, say


def contiguous(shape: list[int]) -> list[int]:
    stride = [1] * len(shape)
    for axis in range(len(shape) - 1, 0, -1):
        stride[axis - 1] = stride[axis] * shape[axis]
    return stride


def answer(message: Message, kind: str) -> Message:
    step = message["steps"][-1]
    if kind == "strict" and "later" in message:
        os._exit(1)
    if step["do"] != "call":
        return no(message, "raised" if kind == "raising-unknown-steps" else "refused")
    if step["of"] != "ms_deform_attn":
        if kind == "dying-of-the-unknown":
            os._exit(1)
        return no(message, "refused")
    if kind != "computing-anything" and any(each["shape"] == [0] for each in message["tensors"]):
        return no(message, "raised")
    found = done(message)
    changed = CHANGED.get(kind)
    if changed is not None:
        changed(message, found)
    if "times" in step and kind != "once":
        found["results"] = [{"list": found["results"] * step["times"]}]
    return found


def no(message: Message, kind: str) -> Message:
    return {"message": kind, "id": message["id"], "reason": "no", "kind": "ValueError", "text": "no"}


def result_with(**changed: Any) -> Any:
    def change(message: Message, found: Message) -> None:
        about = found["tensors"][0]
        about |= {name: make(about) if callable(make) else make for name, make in changed.items()}

    return change


CHANGED: dict[str, Any] = {
    "strides-ignored": result_with(stride=lambda about: contiguous(about["shape"])),
    "offset-ignored": result_with(offset=0),
    "without-a-dtype": result_with(dtype=None),
    "arguments-returned": lambda message, found: found["storages"].update({message["tensors"][0]["storage"]: 0}),
}
KINDS = [*CHANGED, "strict", "raising-unknown-steps", "dying-of-the-unknown", "computing-anything", "once", "staying"]


def main(kind: str) -> None:
    say({**HELLO, "features": [], **({"dtypes": []} if kind == "claiming-no-dtype" else {})})
    for line in sys.stdin:
        message = json.loads(line)
        if message["message"] == "stop":
            if kind == "staying":
                time.sleep(600)
            return
        say(answer(message, kind))


if __name__ == "__main__":
    main(sys.argv[1])
