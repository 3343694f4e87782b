"""The cases of matching and losses enter their regimes: boxes of every kind, exchanges of many, large numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detr_conformance.harness.block_case import settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Settings, Subject
from detr_conformance.topics.losses.cases.any_boxes import boxes_of_any_kind
from detr_conformance.topics.losses.cases.crowded_losses import full_images, many_of_each, published_detection_losses
from detr_conformance.topics.losses.cases.hard_matching import (
    RINGS,
    exchanges,
    gap_of_repairs,
    large_matchings,
    published_hungarian_matching,
    rings,
    telling_boxes,
)
from detr_conformance.topics.losses.cases.planted_losses import CLEAR, clearest, matched_sets
from detr_reference import detection_losses, generalized_box_iou, hungarian_matching
from detr_reference.losses.boxes import box_cxcywh_to_xyxy

LOSSES = Subject("detection_losses", detection_losses)
MATCHING = Subject("hungarian_matching", hungarian_matching)


def matched_pairs(case: Case) -> tuple[Tensor, Tensor]:
    """Boxes of the last layer and what is predicted for them."""
    last = matched_sets(case)[""]
    names = ("pred_logits", "pred_boxes", "target_labels", "target_boxes", "target_counts")
    pairs = hungarian_matching(*(last[name] for name in names), **settings_of(last))
    starts = last["target_counts"].cumsum(0) - last["target_counts"]
    targets = last["target_boxes"][starts[pairs["image"]] + pairs["target"]]
    return targets.double(), last["pred_boxes"][pairs["image"], pairs["query"]].double()


@pytest.mark.parametrize("class_loss", ["focal", "cross_entropy"])
def test_losses_see_boxes_of_every_kind(class_loss: str) -> None:
    cases = [case for case in boxes_of_any_kind(LOSSES) if case.note.endswith(class_loss)]
    found = [torch.cat(parts) for parts in zip(*map(matched_pairs, cases), strict=True)]
    targets, predicted = found
    corners = [box_cxcywh_to_xyxy(boxes) for boxes in found]
    overlap = generalized_box_iou(*corners).diagonal()
    beyond = ((corners[1] < 0) | (corners[1] > 1)).any(-1)
    sides = targets[:, 2:].amin(-1)
    off = (targets - predicted).abs()
    for what, reached in {
        "apart": overlap < -0.1,
        "across the image": off[:, :2].amax(-1) > 0.5,
        "apart and near by": (overlap < 0) & (off[:, :2].amax(-1) < 0.05),
        "across the border": beyond & (overlap > 0),
        "outside": ((corners[1][:, 2:] < 0) | (corners[1][:, :2] > 1)).any(-1),
        "larger than the image": (predicted[:, 2:] > 1).all(-1),
        "of a side of a hundredth": (sides > 0.003) & (sides < 0.01),
        "of a side of a thousandth": sides < 0.001,
        "thin": targets[:, 2:].amax(-1) / sides > 100,
        "nearly right": (off.amax(-1) < 0.002) & (sides > 0.05),
    }.items():
        assert reached.any(), what


@pytest.mark.parametrize("seed", [0, 1])
def test_assignments_in_a_crowd_are_clear(seed: int) -> None:
    """Of the largest call one layer and the encoder: all are planted alike."""
    subject = replace(LOSSES, settings=Settings(seed=seed))
    for case in full_images(subject):
        if "twice" in case.note:  # either query may have either of two equal boxes
            assert torch.equal(case["target_boxes"][0], case["target_boxes"][1])
            assert clearest(case) == 0
        else:
            assert clearest(case) > 3 * CLEAR, case.note
    (published,) = published_detection_losses(subject)
    last = published.having(**{name: published[name][-1:] for name in ("pred_logits", "pred_boxes")})
    assert clearest(last) > 2 * CLEAR


def test_losses_see_many_of_each() -> None:
    counts = [case["target_counts"] for case in full_images(LOSSES)]
    assert max(int(count.max()) for count in counts) >= 300
    sizes = [dict(case.tensors) for case in many_of_each(LOSSES)]
    decoder = (("pred_logits", 0, 12), ("pred_logits", 1, 65), ("pred_logits", 2, 1025))
    for name, axis, many in (*decoder, ("enc_logits", 1, 2049), ("dn_logits", 2, 257)):
        assert any(name in case and case[name].shape[axis] >= many for case in sizes), (name, axis)
    (published,) = published_detection_losses(LOSSES)
    assert published["pred_logits"].shape == (6, 2, 900, 91)
    assert published["enc_logits"].shape == (2, 900, 91)


def test_greedy_assignment_with_repairs_is_dearer() -> None:
    """In every image with a ring of more boxes than are exchanged, in all rings of one image, and in all draws."""
    for case in (*rings(MATCHING), *exchanges(MATCHING)):
        assert gap_of_repairs(case) > 4e-4, case.note
    assert {2, 3, 20} <= {size for image in RINGS for size in image}


def test_changed_boxes_are_matched_otherwise() -> None:
    notes = [case.note for case in telling_boxes(MATCHING)]
    for kind in ("across the border", "of every size", "tiny", "apart"):
        assert any(kind in note for note in notes)


def test_matching_sees_large_calls() -> None:
    cases = [*large_matchings(MATCHING), *published_hungarian_matching(MATCHING)]
    assert max(len(case["pred_logits"]) for case in cases) > 64
    assert max(case["pred_logits"].shape[1] for case in cases) > 1024
    assert max(int(case["target_counts"].max()) for case in cases) >= 300
    assert any(int(case["target_counts"].max()) > 100 and case["pred_logits"].shape[1] == 900 for case in cases)
    assert {label > 255 for case in cases for label in case["target_labels"].tolist()} == {True, False}
    assert max(int(case["target_labels"].max()) for case in cases) > 2**15
