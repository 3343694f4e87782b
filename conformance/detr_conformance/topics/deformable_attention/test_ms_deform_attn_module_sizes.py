"""The deformable attention module: sizes together, and as models call it. Clauses: MSDM-22, 23, 25."""

from __future__ import annotations

import torch

from detr_conformance.harness.block import agrees, expectations, forward, gradients_agree
from detr_conformance.harness.block_case import parameters_of, with_parameters
from detr_conformance.harness.case import Case, LazyCases
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.deformable_attention.cases.module import ModuleStructure, module_case
from detr_conformance.topics.deformable_attention.cases.module_sizes import (
    ENCODER,
    covering_modules,
    on_small_maps,
    smallest_margin,
    steady_case,
    steady_cases,
)
from detr_conformance.topics.deformable_attention.checks.large_module import judge_large_module
from detr_conformance.topics.every_block.checks import ordinary

OPERATION = "ms_deform_attn_module"

# Of the covering array every row in float32, every eighth one in float64; in half dtypes every fourth of those on small
# maps, where places between cells can be told.
ROWS = {
    "float32": slice(None),
    "float16": slice(0, None, 4),
    "bfloat16": slice(2, None, 4),
    "float64": slice(1, None, 8),
}


def modules_together(subject: Subject) -> LazyCases:
    made = covering_modules(subject.settings.seed)
    if subject.torch_dtype.itemsize == 2:
        made = on_small_maps(made)
    return steady_cases(subject, made[ROWS[subject.dtype]], "sizes of the module together")


@covers("MSDM-22", cases=modules_together, costly=True, plain=ordinary)
def test_sizes_of_the_module_together(subject: Subject, case: Case) -> None:
    require(smallest_margin(case) > 0.05, "a sample near a kink")
    (gradients_agree if subject.backward else agrees)(subject, case)


@covers(
    "MSDM-23",
    cases=lambda subject: [steady_case(subject, ENCODER, note="as an encoder calls it")],
    once=True,
    costly=True,
    plain=ordinary,
)
def test_a_module_as_an_encoder_calls_it(subject: Subject, case: Case) -> None:
    require(
        torch.equal(case["query"].new_tensor(case["query"].shape[1]), case["spatial_shapes"].prod(-1).sum()), "Q = S"
    )
    judge_large_module(subject, case)


def on_long_maps(subject: Subject) -> list[Case]:
    """Reference points that bfloat16 knows, and offsets of parts of a cell, which it rounds by little."""
    s = ModuleStructure(((3, 334), (260, 4)), queries=40, heads=4)
    case = module_case(subject, s, note="long sides")
    case = case.having(reference_points=(case["reference_points"] * 256).round() / 256)
    near = {
        f"sampling_offsets__{part}": parameters_of(case)[f"sampling_offsets.{part}"] / 8 for part in ("weight", "bias")
    }
    return [with_parameters(case, **near)]


@covers("MSDM-25", cases=on_long_maps, feature="autocast", dtypes=("float32",))
def test_locations_under_autocast(subject: Subject, case: Case) -> None:
    """Rounding to bfloat16 at the right place is off by a hundredth of what is usual, another cell by all of it."""
    expected = expectations(subject, case, backward=False)["output"].expected
    with torch.autocast(subject.device, dtype=torch.bfloat16), torch.no_grad():
        output = forward(subject, case)
    usual = expected.square().mean().sqrt()
    subject.compare("output under autocast", output, expected, (usual / 16).expand_as(expected))
