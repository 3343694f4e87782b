"""The deformable attention module: where it looks, how much that counts. Clauses: MSDM-1 to MSDM-6, 11, 24."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from detr_conformance.harness.block import agrees
from detr_conformance.harness.block_case import parameters_of, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.deformable_attention.cases.module import OBLONG, ModuleStructure, module_case

OPERATION = "ms_deform_attn_module"


def zeros(case: Case, name: str) -> torch.Tensor:
    return torch.zeros_like(parameters_of(case)[name])


# -- where to look ------------------------------------------------------------------------------------------


def bias_only(subject: Subject, coordinates: int) -> Iterator[Case]:
    """Offsets that do not depend on the query, of four and of three points."""
    for points in (4, 3):
        case = module_case(subject, replace(OBLONG, coordinates=coordinates, points=points), note="bias-only offsets")
        yield with_parameters(case, sampling_offsets__weight=zeros(case, "sampling_offsets.weight"))


@covers("MSDM-1", cases=lambda subject: bias_only(subject, 2))
def test_offsets_in_cells(subject: Subject, case: Case) -> None:
    if subject.variant("reference_points") == "boxes":
        raise NotProvided("reference points are boxes only")
    agrees(subject, case)


@covers("MSDM-2", cases=lambda subject: bias_only(subject, 4))
def test_offsets_in_boxes(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def unlike_sizes(subject: Subject) -> Iterator[Case]:
    """Heads, levels and points in every relation, both kinds of reference points."""
    for heads, levels, points in ((3, 2, 4), (2, 3, 2), (2, 2, 2), (4, 1, 3)):
        shapes = ((4, 9), (7, 3), (2, 6))[:levels]
        for coordinates in (2, 4):
            s = ModuleStructure(shapes, heads=heads, points=points, coordinates=coordinates)
            yield module_case(subject, s, note="heads, levels, points")


@covers("MSDM-3", cases=unlike_sizes)
def test_layout_of_the_offsets(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MSDM-4", cases=unlike_sizes)
def test_every_level_has_its_own_reference_point(subject: Subject, case: Case) -> None:
    first, last = case["reference_points"][:, :, 0], case["reference_points"][:, :, -1]
    require(case["reference_points"].shape[2] == 1 or not torch.equal(first, last), "levels share reference points")
    agrees(subject, case)


def near_and_far(subject: Subject) -> Iterator[Case]:
    """Boxes of a thousandth of the map; then offsets of tens of cells, most of them on the map."""
    small = module_case(subject, replace(OBLONG, coordinates=4), note="small boxes")
    boxes = small["reference_points"].clone()
    boxes[..., 2:] *= 0.01
    yield small.having(reference_points=boxes)
    wide = ModuleStructure(((40, 70), (66, 35)), queries=9, heads=4)
    far = module_case(subject, wide, note="offsets of tens of cells")
    yield with_parameters(far, sampling_offsets__bias=20 * parameters_of(far)["sampling_offsets.bias"])


@covers("MSDM-24", cases=near_and_far)
def test_any_distance(subject: Subject, case: Case) -> None:
    agrees(subject, case)


# -- how much it counts ---------------------------------------------------------------------------------------


def unequal_logits(subject: Subject) -> Iterator[Case]:
    case = module_case(subject, OBLONG, note="unequal logits")
    bias = torch.linspace(-3, 3, parameters_of(case)["attention_weights.bias"].numel())
    yield with_parameters(case, attention_weights__bias=bias)
    yield with_parameters(case, attention_weights__bias=bias.flip(0) * 2)
    yield with_parameters(case, attention_weights__bias=bias * 0.1 + 800)  # exp of which overflows, even in float64


@covers("MSDM-5", cases=unequal_logits)
def test_joint_softmax(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MSDM-6", cases=unequal_logits)
def test_layout_of_the_weights(subject: Subject, case: Case) -> None:
    """Logits that depend on the entry alone, far enough apart for a single entry to win."""
    bias = parameters_of(case)["attention_weights.bias"] * 4
    agrees(
        subject,
        with_parameters(
            case, attention_weights__bias=bias, attention_weights__weight=zeros(case, "attention_weights.weight")
        ),
    )


# -- what is read -------------------------------------------------------------------------------------------


@covers("MSDM-11", cases=unlike_sizes)
def test_heads_of_the_projection(subject: Subject, case: Case) -> None:
    agrees(subject, case)
