"""The regimes of sizes are entered: every pair of classes, both sides of every power of two, and a model's call."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from detr_conformance.harness.subject import Subject
from detr_conformance.topics.deformable_attention.cases.core import Structure, case_at, everywhere
from detr_conformance.topics.deformable_attention.cases.sizes import (
    CLASSES,
    LONG,
    MAPS,
    POWERS,
    PRODUCTION,
    counts_around_powers,
    covering_structures,
    rows,
    sizes_around_powers,
)
from detr_conformance.topics.deformable_attention.checks.large import TILES, telling_queries
from detr_reference import ms_deform_attn

# Each condition of a fast path, and what one call reaches beside it.
CONDITIONS = {
    "B > 3": lambda s: s.batch > 3,
    "Q > 129": lambda s: s.queries > 129,
    "D > 9": lambda s: s.channels > 9,
    "D > 64": lambda s: s.channels > 64,
    "L > 4": lambda s: len(s.levels) > 4,
    "P > 8": lambda s: s.points > 8,
}


def size_of(s: Structure, name: str) -> int:
    return len(s.levels) if name == "levels" else int(getattr(s, name))


def class_of(s: Structure, name: str) -> int | None:
    return next((i for i, members in enumerate(CLASSES[name]) if size_of(s, name) in members), None)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_two_classes_meet_in_a_call(seed: int) -> None:
    met = {
        ((one, class_of(s, one)), (other, class_of(s, other)))
        for s in covering_structures(seed)
        for one, other in combinations(CLASSES, 2)
    }
    wanted = {
        ((one, i), (other, j))
        for one, other in combinations(CLASSES, 2)
        for i, j in product(range(len(CLASSES[one])), range(len(CLASSES[other])))
    }
    assert wanted <= met


def test_no_pair_is_left_out_and_maps_are_of_every_kind() -> None:
    found, left_out = rows()
    assert left_out == []
    assert {row["maps"] for row in found} == set(MAPS)


def test_queries_are_the_cells_on_both_sides_of_powers_of_two_and_in_an_encoder() -> None:
    encoders = {s.cells for turn in range(3) for s in counts_around_powers(turn) if s.queries == s.cells}
    assert {(1 << power) + step for power in range(4, 13) for step in (-1, 1)} <= encoders
    assert LONG.queries == LONG.cells


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_models_call_reaches_all_of_it_at_once(condition: str) -> None:
    def large(s: Structure) -> bool:
        heads = s.batch >= 4 and s.queries >= 1025 and s.heads >= 8 and s.channels >= 32
        return heads and len(s.levels) >= 4 and s.points >= 4 and s.cells >= 5_000

    assert any(large(s) and CONDITIONS[condition](s) for s in PRODUCTION)


def test_a_long_call_has_more_pairs_of_query_and_head_than_a_grid() -> None:
    assert LONG.queries * LONG.heads > 1 << 17


def test_sizes_lie_on_both_sides_of_every_power_of_two() -> None:
    """Over the three turns that the dtypes take."""
    tried = [s for turn in range(3) for s in [*counts_around_powers(turn), *sizes_around_powers(turn)]]
    for name, highest in POWERS.items():
        sizes = {size_of(s, name) for s in tried}
        assert {(1 << power) + step for power in range(2, highest + 1) for step in (-1, 1)} <= sizes, name
    sides = {side for s in tried for level in s.levels for side in level}
    assert {(1 << power) + step for power in range(3, 13) for step in (-1, 1)} <= sides


def test_the_queries_that_are_judged_are_at_the_ends_of_tiles() -> None:
    for queries in (1_029, 22_223):
        chosen = set(telling_queries(queries, 80, "a note").tolist())
        assert {0, queries - 1} <= chosen
        for tile in TILES:
            assert {tile - 1, queries // tile * tile} <= chosen
        assert len(chosen) < 300


def test_different_seeds_take_other_sizes() -> None:
    assert covering_structures(0) != covering_structures(1)
    case = case_at(Subject("ms_deform_attn", ms_deform_attn), covering_structures(1)[0], everywhere)
    assert case["value"].ndim == 4
