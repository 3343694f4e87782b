"""The stages of a model as far as the first that diverges: each one's error as a share of its limit."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from detr_conformance.reporting.pages.drawings.svg import Drawing, box, line, picture, words

WIDTH, LEFT, RIGHT, ROW = 480.0, 170.0, 405.0, 16.0
LOWEST, HIGHEST = -3.0, 4.0  # powers of ten; what lies beyond is drawn at the end
MOST_STAGES = 40
LONGEST_NAME = 26
_FIRST = re.compile(r"first divergence: stage (?P<name>\S+), off by (?P<ratio>[\d.e+]+|inf) limits")
_BEFORE = re.compile(r"stages before it \(error / limit\): (?P<listed>[^\n]+)")
_STAGE = re.compile(r"(?P<name>[\w.]+) \((?P<ratio>[\d.e+-]+|inf)\)")
Stage = tuple[str, float]


def told_stages(detail: str) -> list[Stage]:
    """What a failure says of its stages, in order, the one that diverges last; nothing if it says nothing."""
    first, before = _FIRST.search(detail), _BEFORE.search(detail)
    if first is None or before is None:
        return []
    pairs = [(each["name"], each["ratio"]) for each in _STAGE.finditer(before["listed"])]
    try:
        return [(name, float(ratio)) for name, ratio in [*pairs, (first["name"], first["ratio"])]]
    except ValueError:
        return []


def stage_ladder(stages: Sequence[Stage]) -> Drawing | None:
    """A bar for each stage on a logarithmic scale, with a line at the limit."""
    if not stages:
        return None
    shown = stages[-MOST_STAGES:]
    bottom = 10 + len(shown) * ROW
    parts = [line(_across(1.0), 4, _across(1.0), bottom + 4, "d-limit")]
    for number, (name, ratio) in enumerate(shown):
        top = 8 + number * ROW
        short = name if len(name) <= LONGEST_NAME else f"…{name[-LONGEST_NAME + 1 :]}"
        over = ratio > 1
        parts.append(words(LEFT - 8, top + 11, short, "d-word d-wrong" if over else "d-word", "end"))
        style = "d-over" if over else "d-within"
        parts.append(box(LEFT, top + 3, max(_across(ratio) - LEFT, 1.5), ROW - 6, style, f"{name}: {ratio:.3g}"))
        if over:
            parts.append(words(_across(ratio) + 6, top + 11, f"{ratio:.3g}", "d-word d-wrong"))
    parts.append(words(_across(1.0), bottom + 16, "limit", "d-word d-strong", "middle"))
    last, ratio = stages[-1]
    caption = f"{last} is the first that diverges, off by {ratio:.3g} limits"
    return Drawing("Stages", picture(WIDTH, bottom + 22, caption, parts), caption)


def _across(ratio: float) -> float:
    power = min(max(math.log10(ratio), LOWEST), HIGHEST) if ratio > 0 else LOWEST
    return LEFT + (power - LOWEST) / (HIGHEST - LOWEST) * (RIGHT - LEFT)
