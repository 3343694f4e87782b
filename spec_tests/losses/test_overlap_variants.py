"""Each variant of overlap and post-processing: an implementation that has it conforms if it says so, and only then."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from detr_conformance.running.trial import rejection, trials
from detr_conformance.target import Target
from detr_reference.detectors.postprocess import postprocess
from detr_reference.losses.boxes import generalized_box_iou


def always_epsilon(boxes1: Tensor, boxes2: Tensor, *, eps: float = 1e-6) -> Tensor:
    """As in DINO and detrex."""
    return generalized_box_iou(boxes1, boxes2, eps=1e-6)


def of_one_kind(
    kind: str, logits: Tensor, boxes: Tensor, sizes: Tensor, *, scores: str, num_select: int
) -> dict[str, Tensor]:
    if scores != kind:
        raise NotImplementedError(f"there are {kind} scores only")
    return postprocess(logits, boxes, sizes, scores=kind, num_select=num_select)


def as_many_as_queries(
    logits: Tensor, boxes: Tensor, sizes: Tensor, *, scores: str, num_select: int
) -> dict[str, Tensor]:
    return postprocess(logits, boxes, sizes, scores=scores, num_select=logits.shape[1])


# What an implementation provides, the variant it has, and a clause that it breaks unless it says so.
VARIANTS: dict[str, tuple[dict[str, Callable[..., Any]], dict[str, str], str]] = {
    "epsilon": ({"generalized_box_iou": always_epsilon}, {"giou_eps": "1e-6"}, "GIOU-6"),
    "sigmoid": ({"postprocess": partial(of_one_kind, "sigmoid")}, {"postprocess_scores": "sigmoid"}, "PP-7"),
    "softmax": ({"postprocess": partial(of_one_kind, "softmax")}, {"postprocess_scores": "softmax"}, "PP-1"),
    "queries": ({"postprocess": as_many_as_queries}, {"num_select": "queries"}, "PP-1"),
}


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_judged_as_declared(name: str) -> None:
    provides, variants, clause = VARIANTS[name]
    declared = Target(name, provides, variants=variants)
    failures = [
        f"{test.clauses} {test.name} {dtype}: {failure}"
        for test, dtype, failure in trials(declared, dtypes=("float32", "float16"))
        if failure is not None
    ]
    assert failures == []
    assert rejection(Target(name, provides), clause) is not None


def test_the_variants_differ() -> None:
    box = torch.tensor([[0.25, 0.25, 0.25 + 2**-10, 0.25 + 2**-10]])
    assert always_epsilon(box, box) < 0.5 < generalized_box_iou(box, box)
