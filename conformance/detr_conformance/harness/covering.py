"""Covering arrays of pairs: few rows in which every two values of different factors meet.

A one-factor list tries each size with small ones beside it; most wrong kernels need two sizes at once (D above 64 *and*
more than two levels). Here any two meet in some row, as far as a row may be that large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

Row = dict[str, Any]
Pair = tuple[tuple[str, Any], tuple[str, Any]]


def covering_rows(
    factors: Mapping[str, Sequence[Any]], cost: Callable[[Row], float], cap: float
) -> tuple[list[Row], list[Pair]]:
    """Rows that hold every pair of values of two factors, and the pairs that no row within the cap can hold.

    Built greedily and without chance: each row begins with an uncovered pair, and every further factor takes the value
    that covers the most further pairs, the cheapest of them where several do.

    Args:
        factors: name -> its values, the cheapest first; the other factors of a row are completed from these.
        cost: of a row that has every factor.
        cap: rows cost no more.
    """
    cheapest = {name: values[0] for name, values in factors.items()}
    open_pairs = dict.fromkeys(
        ((one, a), (other, b))
        for one, other in combinations(factors, 2)
        for a, b in product(factors[one], factors[other])
    )
    impossible = [pair for pair in open_pairs if cost(cheapest | dict(pair)) > cap]
    for pair in impossible:
        del open_pairs[pair]
    rows = []
    while open_pairs:
        fixed = dict(next(iter(open_pairs)))
        for name in factors:
            if name not in fixed:
                allowed = [value for value in factors[name] if cost(cheapest | fixed | {name: value}) <= cap]
                fixed[name] = max(allowed, key=lambda value: _gain(fixed, name, value, open_pairs))
        row = {name: fixed[name] for name in factors}
        for pair in pairs_of(row):
            open_pairs.pop(pair, None)
        rows.append(row)
    return rows, impossible


def pairs_of(row: Row) -> list[Pair]:
    """Every two of its values, in the order of the factors."""
    return list(combinations(row.items(), 2))


def _gain(fixed: Row, name: str, value: Any, open_pairs: Mapping[Pair, None]) -> int:
    """How many open pairs the value makes with what is fixed already."""
    new = (name, value)
    return sum((old, new) in open_pairs or (new, old) in open_pairs for old in fixed.items())
