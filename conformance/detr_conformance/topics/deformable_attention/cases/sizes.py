"""Structures of `ms_deform_attn` of every size: two together, about powers of two, and as models call it.

Sizes are classes, of which a row takes one member or another: a kernel that is wrong at one number alone is found by
some, and nobody can learn from the list where not to be wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from math import prod
from typing import Any

from detr_conformance.harness.case import mixed_seed
from detr_conformance.harness.covering import Pair, Row, covering_rows
from detr_conformance.topics.deformable_attention.cases.core import Structure

# The members of each class, the cheapest class first.
CLASSES: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "batch": ((1,), (2, 3), (4, 5, 7), (16, 17, 23), (63, 64, 65)),
    "queries": ((1, 2), (31, 33, 34), (127, 129, 200), (1023, 1025, 1100)),
    "heads": ((1,), (2, 3), (7, 8, 9), (15, 16, 17), (31, 32, 33)),
    "channels": ((1, 2, 3), (7, 8, 9), (15, 16, 17), (31, 32, 33), (63, 64, 65), (95, 96, 127, 129)),
    "levels": ((1,), (2, 3), (4,), (5, 6), (12, 13)),
    "points": ((1,), (3, 4), (5, 6, 7), (8, 9), (16, 17)),
}
MAPS = ("few even", "few odd", "many even", "many odd", "many wide")  # cells of the maps, and how wide they are
CAP = 1 << 20  # sampled numbers of a row, B Q M L P D; four of them weigh as much as a number of the value


# The same and larger ones, for the profile full-size.
FULL_CLASSES: Mapping[str, tuple[tuple[int, ...], ...]] = {
    **CLASSES,
    "queries": (*CLASSES["queries"], (4095, 4097, 5000), (16_383, 16_385, 22_223)),
    "channels": (*CLASSES["channels"], (255, 256, 257)),
    "points": (*CLASSES["points"], (31, 32, 33)),
}
FULL_MAPS = (*MAPS, "most even", "most odd", "most wide")
FULL_CAP = 1 << 26


@cache
def rows(full: bool = False) -> tuple[list[Row], list[Pair]]:
    """The covering array over the numbers of classes, and the pairs that no row can hold."""
    classes, maps, cap = (FULL_CLASSES, FULL_MAPS, FULL_CAP) if full else (CLASSES, MAPS, CAP)
    factors = {name: tuple(range(len(members))) for name, members in classes.items()} | {"maps": maps}
    return covering_rows(factors, partial(_cost, classes), cap)


def covering_structures(seed: int = 0, full: bool = False) -> list[Structure]:
    """A structure for each row of the array."""
    classes = FULL_CLASSES if full else CLASSES
    return [_structure(classes, row, number, seed) for number, row in enumerate(rows(full)[0])]


def pairs_left_out() -> list[str]:
    """Of the largest array, in words."""
    return [" with ".join(f"{name} {_words(name, value)}" for name, value in pair) for pair in rows(full=True)[1]]


def _words(name: str, value: Any) -> str:
    return value if name == "maps" else f"of {FULL_CLASSES[name][value][0]} to {FULL_CLASSES[name][value][-1]}"


def _structure(classes: Mapping[str, tuple[tuple[int, ...], ...]], row: Row, number: int, seed: int) -> Structure:
    sizes = {
        name: members[row[name]][mixed_seed("size", name, number, seed) % len(members[row[name]])]
        for name, members in classes.items()
    }
    levels = maps_of(row["maps"], sizes.pop("levels"))
    return Structure(levels, **sizes)


FIRST = {
    "many even": (70, 74),
    "many odd": (73, 71),
    "many wide": (5, 1031),
    "most even": (160, 256),
    "most odd": (183, 211),
    "most wide": (9, 4099),
}


def maps_of(kind: str, count: int) -> tuple[tuple[int, int], ...]:
    """So many levels: fewer than 100 cells or more than 5,000 in all; of even, odd or great width."""
    if kind.startswith("few"):
        return few_cells(count, odd=kind == "few odd")
    first = FIRST[kind]
    return (first, *((2 + level % 4, 9 - level % 5) for level in range(count - 1)))


def few_cells(count: int, odd: bool) -> tuple[tuple[int, int], ...]:
    return tuple((1 + level % 3, (3, 1, 3)[level % 3] if odd else (2, 4, 2)[level % 3]) for level in range(count))


def _cost(classes: Mapping[str, tuple[tuple[int, ...], ...]], row: Row) -> float:
    largest = {name: max(members[row[name]]) for name, members in classes.items()}
    cells = {"few": 100, "many": 5_500, "most": 41_500}[row["maps"].partition(" ")[0]]
    value = largest["batch"] * cells * largest["heads"] * largest["channels"]
    if classes is CLASSES:
        return max(prod(largest.values()), value / 4)
    samples = prod(largest.values()) / largest["channels"]
    return max(prod(largest.values()), 4 * value, 8 * samples)  # of which there are several copies in float64


POWERS = {"batch": 12, "queries": 12, "heads": 8, "channels": 11, "points": 8}
SMALL = Structure(((3, 4), (2, 2)), batch=1, queries=3, heads=2, channels=3, points=2)


def counts_around_powers(turn: int) -> list[Structure]:
    """Batches, queries, and queries that are the cells, below, above or between powers of two; `turn` says which."""
    return [*_around(turn, "batch", "queries"), *(encoder(_near("cells", power, turn)) for power in range(4, 13))]


def encoder(cells: int) -> Structure:
    """As many queries as cells, in a level of seven rows and another of one."""
    columns = (cells - 1) // 7
    return replace(SMALL, levels=((7, columns), (1, cells - 7 * columns)), queries=cells, batch=2)


def sizes_around_powers(turn: int) -> list[Structure]:
    """The same of heads, channels and points, of the number of levels, and of the sides of a map."""
    found = [*_around(turn, "heads", "channels", "points")]
    for power in range(2, 8):
        count = _near("levels", power, turn)
        found.append(replace(SMALL, levels=tuple((1 + level % 3, 4 - level % 2) for level in range(count))))
    for power in range(2, 13):
        found.append(replace(SMALL, levels=((2, _near("width", power, turn)), (2, 2))))
        found.append(replace(SMALL, levels=((3, 3), (_near("height", power, turn), 2))))
    return found


def _around(turn: int, *names: str) -> Iterator[Structure]:
    for name in names:
        for power in range(2, POWERS[name] + 1):
            yield replace(SMALL, **{name: _near(name, power, turn)})  # type: ignore[arg-type]


def _near(name: str, power: int, turn: int) -> int:
    below, above = (1 << power) - 1, (1 << power) + 1
    between = above + mixed_seed("between", name, power) % max(1, (1 << power) - 2)
    return (below, above, between)[(turn + mixed_seed("turn", name, power)) % 3]


# As published detectors call it, in a batch: B >= 4, Q >= 1025, M >= 8, D >= 32, L >= 4, P >= 4, S >= 5,000 at once.
PYRAMID = ((56, 71), (28, 36), (14, 18), (7, 9))
PRODUCTION = (
    Structure((*PYRAMID, (4, 5)), batch=4, queries=1_030, heads=8, channels=32, points=9),
    Structure(PYRAMID, batch=4, queries=1_029, heads=9, channels=68, points=4),
)
# The cells of an encoder: more than 2^17 queries and heads, in a call that is cheap all the same.
LONG = Structure(((100, 167), (50, 84), (25, 42), (13, 21)), batch=1, queries=22_223, heads=8, channels=4, points=1)
