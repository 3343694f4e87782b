"""What reports printed: shown in full, or in parts."""

from __future__ import annotations

import re

from filling.saved import lines_of

ROW = re.compile(r"^[A-Z]+-\d+ .*\b(pass|FAIL|follows|undecided|warn)\b")


def fenced(*parts: list[str]) -> str:
    text = "\n...\n".join("\n".join(part) for part in parts)
    return f"```text\n{text}\n```"


def section(lines: list[str], clause: str) -> list[str]:
    """What the report says of one clause that failed."""
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{clause} ("))
    end = next(i for i in range(start + 1, len(lines)) if not lines[i] and re.match(r"[A-Z]+-\d+ \(", lines[i + 1]))
    return lines[start:end]


def whole(name: str) -> str:
    return fenced(lines_of(name))


def in_short(name: str) -> str:
    """What was checked, and the verdict."""
    lines = lines_of(name)
    return fenced(lines[:3], lines[-1:])


def passing() -> str:
    lines = lines_of("my-kernel")
    rows = [i for i, line in enumerate(lines) if ROW.match(line)]
    warnings = [lines[i] for i in rows if " warn " in lines[i]]
    return fenced(lines[: rows[12]], warnings, lines[-1:])


def failing() -> str:
    lines = lines_of("my-broken-kernel")
    wrong = re.compile(r" (FAIL|follows|undecided) ")
    rows = [line for line in lines if ROW.match(line) and wrong.search(line) and "(MUST)" not in line]
    return fenced([*lines[:1], *causes(lines), "", *rows], section(lines, first_of(lines)), lines[-1:])


def failing_in_short() -> str:
    lines = lines_of("my-broken-kernel")
    return fenced([*lines[:1], *causes(lines)], section(lines, first_of(lines)), lines[-1:])


def parted() -> str:
    """What a report says of a whole model: the numbers, and the first stage that diverges."""
    lines = lines_of("ported-dino")
    return fenced([*lines[:1], *causes(lines)], section(lines, first_of(lines)), lines[-1:])


def beginning(name: str) -> str:
    """What was wrong, and the verdict."""
    lines = lines_of(name)
    return fenced([*lines[:1], *causes(lines)], lines[-1:])


def causes(lines: list[str]) -> list[str]:
    """What a report of a failing target begins with."""
    heading = next(i for i, line in enumerate(lines[1:], 1) if line)
    after = lines[heading + 1 :]
    return ["", lines[heading], *after[: after.index("")]]


def first_of(lines: list[str]) -> str:
    """The clause that is to be looked at first."""
    found = (re.search(r"look at (\S+) first", line) for line in causes(lines))
    return next(each.group(1) for each in found if each)
