"""The workloads have the sizes that the models' feature maps have, are found by name, and cost what they must."""

from __future__ import annotations

import pytest

from detr_bench.growth import AXES, BASE, FACTORS, POINTS, grown
from detr_bench.inputs import GIVEN
from detr_bench.traffic import least_bytes, least_flops
from detr_bench.workloads import TABLE, USUAL, WORKLOADS, Images, Inside, Workload, chosen, find
from detr_conformance.operations import OPERATIONS


def test_cells_and_queries() -> None:
    cells = {name: workload.cells for name, workload in WORKLOADS.items()}
    assert cells["dino-encoder"] == 22_223
    assert cells["dino-encoder-1066"] == 17_821
    assert cells["dino-encoder-5-scale"] == 89_023
    assert cells["mask2former-encoder-1024"] == 21_504
    assert cells["rt-detr-decoder-640"] == 8_400
    assert cells["bevformer-base"] == 30_825
    for name, workload in WORKLOADS.items():
        assert ("encoder" in name) == (workload.queries == workload.cells)


def test_every_operation_of_the_table_is_one_of_the_spec_and_can_be_made_ready() -> None:
    assert set(TABLE) <= set(OPERATIONS)
    for operation, workloads in TABLE.items():
        assert all(name in workloads for name in USUAL.get(operation, ()))
        for sizes in workloads.values():
            assert (sizes.host if isinstance(sizes, Inside) else operation) in GIVEN


def test_a_model_is_found_at_any_image_size() -> None:
    assert find("dino", "480x640") == Images(480, 640)
    assert find("ms_deform_attn", "dino-480x640") == Inside("dino", Images(480, 640))
    assert find("ms_deform_attn", "deformable_detr-480x640") == Inside("deformable_detr", Images(480, 640))
    for operation, name in (
        ("ms_deform_attn", "480x640"),
        ("ms_deform_attn", "detr-480x640"),  # it has no such core
        ("dino", "dino-480x640"),
        ("dino", "480"),
        ("encoder_layer", "480x640"),
    ):
        assert find(operation, name) is None, (operation, name)


def test_named_workloads_are_chosen_and_otherwise_the_usual_ones() -> None:
    assert tuple(chosen("ms_deform_attn", ())) == USUAL["ms_deform_attn"]
    assert tuple(chosen("detr", ())) == ("320x480",)
    assert tuple(chosen("dino_decoder", ("dino-encoder", "dino-decoder"))) == ("dino-decoder",)
    assert chosen("detr", ("dino-decoder",)) == {}


def test_least_bytes_and_flops_of_a_call_counted_by_hand() -> None:
    w = Workload(levels=((2, 3), (1, 1)), queries=5, batch=2, heads=3, channels=4, points=6)
    value, locations, weights, output = 2 * 7 * 3 * 4, 2 * 5 * 3 * 2 * 6 * 2, 2 * 5 * 3 * 2 * 6, 2 * 5 * 3 * 4
    forward = value + locations + weights + output
    backward = 2 * (value + locations + weights) + output
    assert least_bytes(w, "forward", 4) == 4 * forward
    assert least_bytes(w, "backward", 2) == 2 * backward
    assert least_bytes(w, "both", 8) == 8 * (forward + backward)
    assert least_flops(w, "forward") == 8 * weights * 4
    assert least_flops(w, "both") == least_flops(w, "forward") + least_flops(w, "backward")


@pytest.mark.parametrize("axis", AXES)
def test_growing_an_axis_multiplies_the_samples_and_nothing_else(axis: str) -> None:
    for factor in FACTORS:
        large = grown(f"{axis}-x{factor}")
        assert least_flops(large, "forward") == factor * least_flops(BASE, "forward")
    assert {name for name, (of, _) in POINTS.items() if of == axis} == {f"{axis}-x{factor}" for factor in FACTORS}
    large = grown(f"{axis}-x2")
    changed = {
        name
        for name in ("levels", "queries", "batch", "heads", "points")
        if getattr(large, name) != getattr(BASE, name)
    }
    assert changed == ({"levels", "queries"} if axis == "cells" else {axis})
    assert large.cells == (2 if axis in ("cells", "levels") else 1) * BASE.cells
