"""Gives damaged input to what reads it, and counts what comes of it."""

from __future__ import annotations

import random
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.fuzzing.damage import OUTSIDE, damaged

SECONDS = 10  # after which one input counts as a hang
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
            if [each.name for each in Path(around).iterdir()] != ["given"] or Path(OUTSIDE).exists():
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
