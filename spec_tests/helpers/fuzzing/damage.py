"""Faults of bytes, of JSON values, and of the headers of safetensors files."""

from __future__ import annotations

import copy
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUTSIDE = str(Path(tempfile.gettempdir()) / "outside-of-fuzzing")
STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1 << 62, 1 << 70, 1e308, 0.5, "", "x", "../../outside", OUTSIDE, "\0", "é\u202e"),
    *([], {}, [[]], [1 << 40], {"": {}}, "NaN", "9" * 5000, ["a"] * 200),
)


def damaged(content: bytes, luck: random.Random) -> bytes:
    """The content with a fault or two: of bytes, of a JSON value, or of the header of a safetensors file."""
    for _ in range(luck.choice((1, 1, 1, 2, 3))):
        content = luck.choice((_bytes, _structure, _structure))(content, luck)
    return content


def _bytes(content: bytes, luck: random.Random) -> bytes:
    at, length = luck.randrange(len(content) + 1), luck.choice((1, 2, 7, 64))
    return luck.choice(
        (
            content[:at],
            content[:at] + luck.randbytes(length) + content[at + length :],
            content[:at] + luck.randbytes(length) + content[at:],
            content[:at] + content[at + length :],
            content + content[:at],
            content[:at] + b"[" * 3000 + content[at:],
        )
    )


def _structure(content: bytes, luck: random.Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    if 0 < length <= len(content) - 8 and content[8:9] == b"{":
        header = _json(content[8 : 8 + length], luck)
        return len(header).to_bytes(8, "little") + header + content[8 + length :]
    return _json(content, luck)


def _json(content: bytes, luck: random.Random) -> bytes:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return _bytes(content, luck)
    return json.dumps(changed(value, luck)).encode()


def changed(value: Any, luck: random.Random) -> Any:
    """The value with one of its parts replaced, left out, doubled, or put under another name."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return luck.choice(STRANGE)
    container, key = luck.choice(places)
    match luck.randrange(5):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            container[luck.choice(("", "../x", "__metadata__", "x" * 300))] = container.pop(key)
        case 2 if isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        case 3:
            container[key] = copy.deepcopy(luck.choice(places)[0])
        case _:
            container[key] = luck.choice(STRANGE)
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in entries:
        yield value, key
        yield from _places(each)
