"""The contents of MSDA-66 are what their names say, and any two of them meet."""

from __future__ import annotations

from itertools import product

import torch

from detr_conformance.harness.case import Case
from detr_conformance.harness.covering import pairs_of
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.deformable_attention.cases.contents import (
    GRADIENTS,
    LOCATIONS,
    VALUES,
    WEIGHTS,
    contents,
    rows,
)
from detr_conformance.topics.deformable_attention.cases.core import pixels_of, structure_of
from detr_reference import ms_deform_attn

CASES = contents(Subject("ms_deform_attn", ms_deform_attn))


def having(name: str) -> list[Case]:
    found = [case for case in CASES if name in case.note]
    assert found, f"no case has {name}"
    return found


def test_any_two_contents_meet() -> None:
    met = {pair for row in rows() for pair in pairs_of(row)}
    factors = {"locations": LOCATIONS, "weights": WEIGHTS, "value": VALUES, "grad_output": GRADIENTS}
    names = list(factors)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            for a, b in product(factors[one], factors[other]):
                assert ((one, a), (other, b)) in met


def share_outside(case: Case) -> float:
    sizes = structure_of(case).sizes()
    pixels = pixels_of(case)
    return float(((pixels <= -1) | (pixels >= sizes)).any(-1).double().mean())


def test_samples_lie_where_they_are_said_to() -> None:
    assert all(0 < share_outside(case) < 1 / 64 for case in having("nearly all inside"))
    assert all(0.3 < share_outside(case) < 0.7 for case in having("far outside"))
    assert any(float(pixels_of(case).abs().max()) > 2**15 for case in having("far outside"))
    for case in having("on the same cells"):
        cells = pixels_of(case).floor()
        assert torch.equal(cells, cells[:, :1].expand_as(cells))
    for case in having("in clusters"):
        run = pixels_of(case)[:, :64]
        assert bool(((run.amax((1, 4)) - run.amin((1, 4))) < 16).all())


def test_weights_maps_and_gradients_are_what_they_are_said_to_be() -> None:
    assert all(len(case["attention_weights"].unique()) == 1 for case in having("alike"))
    assert all(float(case["attention_weights"].flatten(3).amax(-1).median()) > 0.9 for case in having("sharp"))
    assert all(not case["attention_weights"][:, :, :, 0].any() for case in having("one level"))
    assert all(not case["value"][-1].any() and bool(case["value"][0].any()) for case in having("image of zeros"))
    for case in having("few rows"):
        live = (case["grad_output"] != 0).any(-1)
        assert 32 < int(live.sum()) < live.numel() // 4
    for case in having("of every size"):
        rows_of = case["grad_output"].abs().amax(-1)
        assert float(rows_of.max() / rows_of.median()) > 2**28
