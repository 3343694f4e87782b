"""The regimes of the module's sizes are entered: every pair of classes, wide modules, an encoder's call."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from detr_conformance.harness.subject import Subject
from detr_conformance.topics.deformable_attention.cases.module_sizes import (
    CLASSES,
    ENCODER,
    FULL_CAP,
    SWITCHES,
    ModuleRow,
    covering_modules,
    rows,
    smallest_margin,
    steady_case,
)
from detr_reference.deformable_attention.module import build


def value_of(made: ModuleRow, name: str) -> object:
    """The class that a size belongs to, or what a switch is; None where an encoder has as many queries as cells."""
    s = made.structure
    if name in ("coordinates", "masked"):
        return getattr(s, name)
    if name in SWITCHES:
        return getattr(made, name)
    size = len(s.levels) if name == "levels" else getattr(s, name)
    return next((number for number, members in enumerate(CLASSES[name]) if size in members), None)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_two_classes_meet_in_a_call_of_the_module(seed: int) -> None:
    values = {name: tuple(range(len(members))) for name, members in CLASSES.items()} | dict(SWITCHES)
    met = {
        ((one, value_of(made, one)), (other, value_of(made, other)))
        for made in covering_modules(seed)
        for one, other in combinations(values, 2)
    }
    wanted = {
        ((one, a), (other, b))
        for one, other in combinations(values, 2)
        for a, b in product(values[one], values[other])
        if "queries" not in (one, other)  # which an encoder exchanges for the number of cells
    }
    assert wanted - met == {(("heads", 3), ("channels", 3))}


def test_what_the_smallest_array_leaves_out_the_largest_holds() -> None:
    assert rows()[1] == [(("heads", 3), ("channels", 3))]
    assert rows(FULL_CAP)[1] == []


def test_modules_are_wider_than_256_channels_in_boxes_and_around_points() -> None:
    wide = [made.structure for made in covering_modules() if made.structure.embed > 256]
    assert {s.coordinates for s in wide} == {2, 4}
    assert any(len(s.levels) > 1 and s.points > 1 for s in wide)


def test_no_sample_of_any_row_is_near_a_kink() -> None:
    for dtype in ("float32", "bfloat16"):
        subject = Subject("ms_deform_attn_module", build, dtype)
        for made in covering_modules():
            if dtype == "float32" or max(max(level) for level in made.structure.levels) < 40:
                assert smallest_margin(steady_case(subject, made, note="a margin")) > 0.05, made


def test_an_encoders_call_has_more_cells_than_a_chunk() -> None:
    s = ENCODER.structure
    assert s.queries == s.cells > 2 * 1024
    assert (ENCODER.encoder, s.masked, s.embed, len(s.levels)) == (True, True, 256, 4)
