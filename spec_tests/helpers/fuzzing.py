"""Damages what comes from outside, and counts what its readers make of it.

python -m helpers.fuzzing ROUNDS    in spec_tests: so many inputs of each kind, and a line of figures a kind
"""

from __future__ import annotations

import copy
import json
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

SECONDS = 10  # after which one input counts as a hang
MEMORY = 1 << 30  # bytes by which the whole may grow
STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1 << 62, 1 << 70, 1e308, 0.5, "", "x", "../../outside", "/tmp/outside", "\0", "é\u202e"),
    *([], {}, [[]], [1 << 40], {"": {}}, "NaN", "9" * 5000, ["a"] * 200),
)
Read = Callable[[Path], None]


@dataclass(frozen=True)
class Reader:
    """What reads a file from outside.

    Attributes:
        files: valid contents by name, of a folder of their own.
        read: reads the folder; what it raises beside `refusals` is a crash.
    """

    name: str
    files: dict[str, bytes]
    read: Read
    refusals: tuple[type[BaseException], ...]


@dataclass
class Found:
    """Counts of a reader, and the inputs that went wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)


# -- damage ---------------------------------------------------------------------------------------------------


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


# -- trying ---------------------------------------------------------------------------------------------------


class Hang(BaseException):
    pass


@contextmanager
def timed() -> Iterator[None]:
    def ring(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(reader: Reader, rounds: int, seed: int = 0, show: Callable[[int], None] = lambda _: None) -> Found:
    """So many damaged inputs, the same ones for the same seed."""
    found = Found()
    for number in range(rounds):
        show(number)
        luck = random.Random(f"{reader.name}/{seed}/{number}")
        files = dict(reader.files)
        name = luck.choice(list(files))
        files[name] = damaged(files[name], luck)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as around:
            folder = Path(around) / "given"
            folder.mkdir()
            for each, content in files.items():
                (folder / each).write_bytes(content)
            outcome = _tried(reader, folder)
            if [each.name for each in Path(around).iterdir()] != ["given"] or Path("/tmp/outside").exists():
                outcome = "wrote outside"
        found.counts[outcome] += 1
        if outcome not in ("read", "refused"):
            found.wrong.append((outcome, files))
    return found


def _tried(reader: Reader, folder: Path) -> str:
    try:
        with timed():
            reader.read(folder)
    except reader.refusals:
        return "refused"
    except Hang:
        return "hung"
    except BaseException as error:
        return f"crashed: {type(error).__name__}: {str(error)[:200]}"
    return "read"


def grown() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@click.command()
@click.argument("rounds", type=int)
@click.option("--seed", type=int, default=0)
def main(rounds: int, seed: int) -> None:
    """Try every reader on ROUNDS damaged inputs."""
    from helpers.hostile_readers import readers

    bad = False
    for reader in readers():
        before, start = grown(), time.monotonic()
        with click.progressbar(length=rounds, label=reader.name, file=sys.stderr) as bar:
            found = fuzz(reader, rounds, seed, lambda _, bar=bar: bar.update(1))
        counts = ", ".join(f"{count} {what}" for what, count in found.counts.most_common())
        memory = grown() - before
        click.echo(f"{reader.name}: {counts}; {time.monotonic() - start:.0f} s, {memory / 2**20:.0f} MiB more")
        bad = bad or bool(found.wrong) or memory > MEMORY
    raise SystemExit(int(bad))


if __name__ == "__main__":
    main()
