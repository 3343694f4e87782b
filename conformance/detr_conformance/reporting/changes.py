"""What changed between two reports: verdicts, and what changed without changing one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from detr_conformance.evidence.clauses import natural_key
from detr_conformance.reporting.report import Report

NOTEWORTHY_FACTOR = 2.0
ABSENT = "absent"
LARGEST = 1 << 63  # of a report's whole numbers


def pairs(
    before: Mapping[str, Report], after: Mapping[str, Report]
) -> Iterator[tuple[str, Report | None, Report | None]]:
    """Reports of the same target; one against one in any case, as to compare two kernels."""
    if len(before) == len(after) == 1:
        (one,), (other,) = before.values(), after.values()
        names = dict.fromkeys((one["target"]["name"], other["target"]["name"]))
        yield " -> ".join(names), one, other
        return
    for name in sorted({*before, *after}):
        yield name, before.get(name), after.get(name)


def verdict_changes(one: Report | None, other: Report | None) -> Iterator[str]:
    """The verdict of the whole, and of each clause, where it differs."""
    was, now = (report["verdict"] if report else ABSENT for report in (one, other))
    if was != now:
        yield f"verdict: {was} -> {now}"
    if one is None or other is None:
        return
    for clause in sorted({*one["clauses"], *other["clauses"]}, key=natural_key):
        was, now = (report["clauses"].get(clause, {}).get("verdict", ABSENT) for report in (one, other))
        if was != now:
            message = other["clauses"].get(clause, {}).get("message")
            yield f"{clause}: {was} -> {now}" + (f" ({message})" if message else "")


def remarks(one: Report | None, other: Report | None) -> Iterator[str]:
    """What changed without changing a verdict."""
    if one is None or other is None:
        return
    for part in ("target", "environment"):
        for key in sorted({*one[part], *other[part]}):
            was, now = one[part].get(key), other[part].get(key)
            if was != now:
                yield f"{part} {key}: {_shown(was)} -> {_shown(now)}"
    for clause in one["clauses"]:
        if clause in other["clauses"]:
            yield from _number_changes(clause, one["clauses"][clause], other["clauses"][clause])


def _number_changes(clause: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    for key, name in (("worst_error_ratio", "worst error / limit"), ("mismatches", "mismatches")):
        was, now = _flat(one.get(key)), _flat(other.get(key))
        for place in [place for place in was if place in now]:
            if _noteworthy(key, was[place], now[place]):
                yield f"{clause}: {name} {_number(was[place])} -> {_number(now[place])} ({' '.join(place)})"


def _noteworthy(key: str, was: float | None, now: float | None) -> bool:
    if was == now:
        return False
    if was is None or now is None or key == "mismatches":
        return True
    return max(was, now) > NOTEWORTHY_FACTOR * min(was, now)


def _flat(nested: Any) -> dict[tuple[str, ...], float | None]:
    """{operation: {device: {dtype: number}}} -> {(operation, device, dtype): number}"""
    if not isinstance(nested, dict):
        is_number = isinstance(nested, float) or (isinstance(nested, int) and abs(nested) < LARGEST)
        return {(): nested} if nested is None or is_number else {}
    return {(key, *place): number for key, inner in nested.items() for place, number in _flat(inner).items()}


def _number(number: float | None) -> str:
    return "none" if number is None else f"{number:.3g}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
