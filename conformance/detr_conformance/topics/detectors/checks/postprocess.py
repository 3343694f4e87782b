"""What detections are compared with: exact labels where scores are apart, otherwise any right choice among equals."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.harness.block import agrees, outputs
from detr_conformance.harness.block_case import call_with, inputs_of, reference_callable, settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.losses.checks.overlap import accurate
from detr_reference.losses.boxes import box_cxcywh_to_xyxy


def detections_agree(subject: Subject, case: Case, precise: bool = False) -> None:
    """Scores and boxes lie within their limits, and the labels are the reference's, in its order."""
    labels_agree(subject, case)
    accurate(subject, case) if precise else agrees(subject, case)


def labels_agree(subject: Subject, case: Case) -> None:
    subject.compare_exactly("labels", labels_of(outputs(subject, case)), right_labels(subject, case))


def labels_of(detections: dict[str, Tensor]) -> Tensor:
    """The labels, which must be there and whole numbers."""
    labels = detections.get("labels")
    expect(labels is not None, "the output has no labels", where="labels", got=", ".join(detections))
    assert labels is not None
    expect(labels.dtype == torch.int64, f"labels have dtype {labels.dtype}", where="labels", expected="torch.int64")
    return labels


def right_labels(subject: Subject, case: Case) -> Tensor:
    inputs = {n: t.double() if t.is_floating_point() else t for n, t in inputs_of(subject.operation, case).items()}
    right = call_with(subject.operation, reference_callable(subject.operation, case, torch.float64), inputs)
    labels: Tensor = right["labels"]
    return labels


def a_best_choice(subject: Subject, case: Case) -> None:
    """Each detection is a pair of its own, scores fall, and no pair that was left out is clearly better.

    Clearly: by more than scores of the claimed dtype may be wrong.
    """
    detections = outputs(subject, case)
    scores, labels = detections["scores"].double().cpu(), labels_of(detections).cpu()
    right = case["pred_logits"].double().sigmoid()
    unit = max(torch.finfo(torch.float32).eps, torch.finfo(subject.torch_dtype).eps) / 2
    margin = 8 * unit * right.amax((1, 2)) + torch.finfo(subject.torch_dtype).tiny
    queries = queries_of(case, detections["boxes"].double().cpu())
    wanted = min(settings_of(case)["num_select"], right[0].numel())
    expect(scores.shape[1] == wanted, f"{scores.shape[1]} detections", where="scores", expected=str(wanted))
    known = bool(((labels >= 0) & (labels < right.shape[-1])).all())
    expect(known, f"labels {labels.tolist()} of {right.shape[-1]} classes", where="labels")
    for image, score in enumerate(scores):
        taken = queries[image] * right.shape[-1] + labels[image]
        expect(len(set(taken.tolist())) == wanted, f"image {image} has a pair of query and class twice", where="labels")
        own = right[image].flatten()[taken]
        subject.compare(f"scores of image {image}", detections["scores"][image], own, margin[image].expand_as(own))
        expect(bool((score.diff() <= 0).all()), f"the scores of image {image} rise: {score.tolist()}", where="scores")
        left = right[image].flatten().scatter(0, taken, -1).max()
        expect(
            bool(left <= own.min() + 2 * margin[image]),
            f"image {image} leaves out a pair of score {left:.6g}, and takes one of {own.min():.6g}",
            where="scores",
            expected=f"{left:.6g}",
            got=f"{own.min():.6g}",
        )


def queries_of(case: Case, boxes: Tensor) -> Tensor:
    """(batch, detection): whose box lies next to that of each detection."""
    height, width = case["sizes"].double().unbind(-1)
    scale = torch.stack((width, height, width, height), -1)[:, None]
    own = box_cxcywh_to_xyxy(case["pred_boxes"].double())
    return torch.cdist(boxes / scale, own).argmin(-1)
