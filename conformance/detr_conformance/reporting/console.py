"""The console that reports are printed on, and how words of a target's are put on it."""

from __future__ import annotations

import re
import sys
from typing import IO, Any, cast

from rich.console import Console
from rich.text import Text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

STYLES = {
    "pass": "green",
    "fail": "bold red",
    "warn": "yellow",
    "undecided": "yellow",
    "deviation": "magenta",
    "not-provided": "dim",
    "not-exercised": "dim",
    "error": "bold red",
}


def report_console() -> Console:
    """Standard output; without the spaces that rich pads lines with, if it goes to a file or a pipe."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(file=cast(IO[str], _WithoutPadding(sys.stdout)), highlight=False)


class _WithoutPadding:
    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(re.sub(r" +\n", "\n", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def visible(text: str, style: str = "") -> Text:
    """Words of a target's, which may hold anything, without what would steer the terminal."""
    return Text(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text), style=style)
