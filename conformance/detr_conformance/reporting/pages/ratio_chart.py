"""Every judged error as a share of its limit: a dot each on a logarithmic scale, a row a dtype, a line at 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from detr_conformance.reporting.pages.drawings.svg import dot, element, line, picture, words
from detr_conformance.reporting.pages.judged import Judged, shown_ratio
from detr_conformance.reporting.pages.matrix import by_precision

WIDTH, LEFT, RIGHT = 760.0, 84.0, 740.0
LOWEST, HIGHEST = -4.0, 6.0  # powers of ten; what lies beyond is drawn at the end
BIN = 9.0  # pixels
TALLEST = 110.0
LARGEST_DOT = 3.6
GAP = 26.0


@dataclass(frozen=True)
class Dot:
    """The worst error of one clause in one place."""

    clause: str
    operation: str
    ratio: float
    failed: bool


def ratio_chart(judged: Mapping[str, Judged], anchor: str = "") -> Markup | None:
    """None where no clause has an error to show; `anchor` begins the ids of the failures that dots lead to."""
    by_row: dict[str, list[Dot]] = {}
    for each in judged.values():
        for (operation, device, dtype), ratio in each.ratios.items():
            row = dtype if device in ("cpu", "-") else f"{dtype} {device}"
            failed = ratio > 1 and each.verdict in ("fail", "warn", "deviation", "undecided")
            by_row.setdefault(row, []).append(Dot(each.id, operation, ratio, failed))
    if not by_row:
        return None
    failures = {each.id for each in judged.values() if each.verdict == "fail"}
    parts: list[Markup] = []
    top = 20.0
    for row in sorted(by_row, key=lambda row: by_precision(row.partition(" ")[0])):
        drawn, height = _row(row, by_row[row], top, anchor, failures)
        parts += drawn
        top += height + GAP
    count = sum(map(len, by_row.values()))
    over = sum(each.ratio > 1 for dots in by_row.values() for each in dots)
    label = f"worst errors as a share of their limits: {count} of {len(by_row)} dtypes, {over} above the limit"
    return picture(WIDTH, top + 18, label, [*_scale(top - GAP + 10), *parts])


def _row(name: str, dots: Sequence[Dot], top: float, anchor: str, failures: set[str]) -> tuple[list[Markup], float]:
    """One dtype: dots in heaps, and how high the highest is."""
    heaps: dict[int, list[Dot]] = {}
    for each in sorted(dots, key=lambda each: (each.ratio, each.clause)):
        heaps.setdefault(int((_across(each.ratio) - LEFT) // BIN), []).append(each)
    highest = max(map(len, heaps.values()))
    step = min(2 * LARGEST_DOT + 1, TALLEST / highest)
    radius = max(min(step / 2, LARGEST_DOT), 0.9)
    height = max(highest * step, 16.0)
    bottom = top + height
    parts = [
        words(LEFT - 12, bottom - 3, name, "d-word", "end"),
        line(LEFT, bottom, RIGHT, bottom, "d-axis"),
    ]
    for heap, members in heaps.items():
        x = LEFT + (heap + 0.5) * BIN
        for level, each in enumerate(members):
            style = "d-over" if each.failed else "d-above" if each.ratio > 1 else "d-within"
            spot = dot(x, bottom - (level + 0.5) * step, radius, style, _told(each))
            parts.append(element("a", spot, href=f"#{anchor}{each.clause}") if each.clause in failures else spot)
    return parts, height


def _told(each: Dot) -> str:
    return f"{each.clause}, {each.operation}: {shown_ratio(each.ratio)} of its limit"


def _across(ratio: float) -> float:
    power = min(max(math.log10(ratio), LOWEST), HIGHEST) if ratio > 0 else LOWEST
    share = (power - LOWEST) / (HIGHEST - LOWEST)
    return min(LEFT + share * (RIGHT - LEFT), RIGHT - 0.1)


def _scale(bottom: float) -> list[Markup]:
    parts = []
    for power in range(int(LOWEST), int(HIGHEST) + 1):
        x = LEFT + (power - LOWEST) / (HIGHEST - LOWEST) * (RIGHT - LEFT)
        named = {0: "limit"}.get(power, f"{10.0**power:g}")
        end = {int(LOWEST): "≤ ", int(HIGHEST): "≥ "}.get(power, "")
        parts.append(line(x, 8, x, bottom, "d-limit" if power == 0 else "d-grid"))
        style = "d-word d-strong" if power == 0 else "d-word"
        parts.append(words(x, bottom + 20, end + named, style, "middle"))
    return parts
