"""Expected, limit and got on a number line: what is drawn of any number that was wrong."""

from __future__ import annotations

import math
import re

from markupsafe import Markup

from detr_conformance.reporting.pages.drawings.svg import Drawing, box, dot, line, picture, words

WIDTH, HEIGHT = 440.0, 96.0
LEFT, RIGHT, AXIS = 30.0, 410.0, 52.0
THINNEST = 3.0  # of a band that would not be seen at the scale of the error
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|inf|nan)", re.IGNORECASE)


def band(expected: str, got: str, limit: str) -> Drawing | None:
    """The interval around the expected number in which every right answer lies, and the answer that was given.

    None where expected or got is no number, as for shapes and words.
    """
    want, have, within = number(expected), number(got), number(limit)
    if want is None or have is None or not math.isfinite(want):
        return None
    half = within if within is not None and math.isfinite(within) else 0.0
    if not math.isfinite(have):
        return Drawing("The number", _beyond(want, half, got))
    reach = max(abs(have - want), half)
    if reach == 0 or not math.isfinite(reach):
        return Drawing("The number", _beyond(want, half, got)) if reach else None
    low, high = min(want - half, have), max(want + half, have)
    spread = high - low
    if not math.isfinite(spread):
        return Drawing("The number", _beyond(want, half, got))

    def place(value: float) -> float:
        return LEFT + 24 + (value - low) / spread * (RIGHT - LEFT - 48)

    parts = [*_axis(place(want), place(want + half) - place(want)), *_mark(place(have), got, place(have) > place(want))]
    parts += _named(place(want), f"expected {expected}", place(want) > (LEFT + RIGHT) / 2)
    off = abs(have - want) / half if half else None
    told = f"{off:.3g} limits away" if off is not None else "no error is allowed"
    label = f"expected {expected}, limit {limit}, got {got}: {told}"
    return Drawing("The number", picture(WIDTH, HEIGHT, label, parts), told)


def number(text: str) -> float | None:
    """The number that a text is, or begins with, as in "0 (exact)"; None if it is something else."""
    match = _NUMBER.match(text.strip())
    if match is None or ((rest := text.strip()[match.end() :]) and not rest.startswith(" (")):
        return None
    return float(match[0])


def _beyond(want: float, half: float, got: str) -> Markup:
    """An answer that no axis holds: NaN, an infinity, or too far away to be drawn to scale."""
    middle = LEFT + 90.0
    parts = [*_axis(middle, 30.0 if half else 0.0), *_named(middle, f"expected {want:.9g}", False)]
    parts += [line(RIGHT - 70, AXIS, RIGHT, AXIS, "d-axis d-broken"), *_mark(RIGHT - 24, got, True)]
    return picture(WIDTH, HEIGHT, f"expected {want:.9g}, got {got}", parts)


def _axis(middle: float, half: float) -> list[Markup]:
    half = max(half, THINNEST / 2)
    return [
        line(LEFT, AXIS, RIGHT, AXIS, "d-axis"),
        box(middle - half, AXIS - 14, 2 * half, 28, "d-allowed", "right answers"),
        line(middle, AXIS - 18, middle, AXIS + 18, "d-expected"),
    ]


def _mark(x: float, got: str, to_the_right: bool) -> list[Markup]:
    anchor, where = ("end", RIGHT) if to_the_right else ("start", LEFT)
    return [dot(x, AXIS, 6.0, "d-got", f"got {got}"), words(where, AXIS + 36, f"got {got}", "d-word d-wrong", anchor)]


def _named(x: float, text: str, to_the_right: bool) -> list[Markup]:
    anchor, where = ("end", min(x + 60, RIGHT)) if to_the_right else ("start", max(x - 60, LEFT))
    return [words(where, AXIS - 26, text, "d-word", anchor)]
