"""What the variants of chapter 15 are for: right targets that differ as declared pass, and only if they declare it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from detr_conformance.evidence.clauses import load_clauses
from detr_conformance.running.trial import rejection, trials
from detr_conformance.target import Target
from detr_reference.losses.detection_losses import detection_losses
from detr_reference.losses.matching import hungarian_matching

ABOUT = {
    "eps": {"HM-3", "HM-9", "LOSS-8", "LOSS-15", "LOSS-25"},
    "focal": {clause for clause in load_clauses() if clause.startswith(("HM-", "LOSS-"))},
}
BOTH = {"hungarian_matching": hungarian_matching, "detection_losses": detection_losses}


def with_eps(function: Any, *tensors: Any, giou_eps: float = 0.0, **more: Any) -> Any:
    """As DINO and detrex, which have no other GIoU."""
    return function(*tensors, giou_eps=1e-6, **more)


def decoder_only(*tensors: Any, class_loss: str = "focal", **more: Any) -> Any:
    """As Deformable DETR without two stages: focal loss of decoder layers."""
    if class_loss != "focal" or len(tensors) > 5 or {"enc_logits", "dn_logits"} & more.keys():
        raise AssertionError("called for what the variants exclude")
    return detection_losses(*tensors, class_loss="focal", **more)


def focal_only(*tensors: Any, class_cost: str = "focal", **more: Any) -> Any:
    if class_cost != "focal":
        raise AssertionError("called for what the variants exclude")
    return hungarian_matching(*tensors, class_cost="focal", **more)


def target(name: str, variants: dict[str, str]) -> Target:
    provides = {
        "eps": {name: partial(with_eps, function) for name, function in BOTH.items()},
        "focal": {"hungarian_matching": focal_only, "detection_losses": decoder_only},
    }[name]
    return Target(name=name, provides=provides, variants=variants)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("name", "variants"),
    [("eps", {"giou_eps": "1e-6"}), ("focal", {"class_loss": "focal", "loss_sets": "decoder"})],
)
def test_declared(name: str, variants: dict[str, str]) -> None:
    found = list(trials(target(name, variants), ABOUT[name], ("float32",)))
    assert [(test.name, str(failure)) for test, _, failure in found if failure is not None] == []


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("name", "clause"), [("eps", "LOSS-8"), ("focal", "HM-6"), ("focal", "LOSS-4"), ("focal", "LOSS-17")]
)
def test_undeclared(name: str, clause: str) -> None:
    assert rejection(target(name, {}), clause) is not None
