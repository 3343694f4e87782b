"""Covering arrays hold every pair that a row may hold, and say which they leave out."""

from __future__ import annotations

from itertools import combinations, product
from math import prod

from detr_conformance.harness.covering import Row, covering_rows, pairs_of

FACTORS = {"a": (1, 2, 5), "b": (1, 3), "c": (1, 4, 7, 9), "d": (1, 8)}


def size(row: Row) -> float:
    return prod(row.values())


def test_every_pair_is_in_some_row() -> None:
    rows, left_out = covering_rows(FACTORS, size, cap=1000)
    covered = {pair for row in rows for pair in pairs_of(row)}
    every = {((x, i), (y, j)) for x, y in combinations(FACTORS, 2) for i, j in product(FACTORS[x], FACTORS[y])}
    assert left_out == []
    assert covered == every
    assert len(rows) < prod(map(len, FACTORS.values())) / 2


def test_no_row_passes_the_cap_and_what_cannot_be_is_left_out() -> None:
    rows, left_out = covering_rows(FACTORS, size, cap=40)
    assert all(size(row) <= 40 for row in rows)
    assert left_out == [(("a", 5), ("c", 9)), (("c", 7), ("d", 8)), (("c", 9), ("d", 8))]
    covered = {pair for row in rows for pair in pairs_of(row)}
    assert not covered & set(left_out)


def test_rows_are_the_same_at_every_call() -> None:
    assert covering_rows(FACTORS, size, cap=100) == covering_rows(FACTORS, size, cap=100)
