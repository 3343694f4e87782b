"""Mutants of the detection losses: gradients, images without boxes, arguments (LOSS-25 to LOSS-30)."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.mutants.losses import (
    Batch,
    Boxes,
    Chosen,
    Logits,
    Losses,
    LossesByHand,
    Pairs,
    Predicted,
    Some,
)
from detr_conformance.topics.losses.mutants.matching_arguments import NaNReplaced


@mutant("losses-encoder-detached", rejects="LOSS-25", operation="detection_losses", origin="topk of detached proposals")
class EncoderDetached(LossesByHand):
    """Gives the encoder's boxes no gradient."""

    def encoder(self, logits: Logits, boxes: Boxes, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        return super().encoder(logits, boxes.detach() + 0 * boxes, batch, number, chosen)


@mutant(
    "losses-earlier-layers-detached",
    rejects="LOSS-25",
    operation="detection_losses",
    origin="auxiliary losses for logging",
)
class EarlierLayersDetached(LossesByHand):
    """Gives the boxes of earlier layers no gradient."""

    def decoder(self, logits: Tensor, boxes: Tensor, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        return super().decoder(logits, torch.cat((boxes[:-1].detach(), boxes[-1:])), batch, number, chosen)


@mutant(
    "losses-giou-without-gradient", rejects="LOSS-25", operation="detection_losses", origin="the matching's cost reused"
)
class GIoUWithoutGradient(LossesByHand):
    """Reads the GIoU where the matching computed it, without gradients."""

    def giou(self, ours: Some, theirs: Some, eps: float) -> Tensor:
        return super().giou(ours.detach(), theirs, eps) + 0 * ours.sum()


@mutant(
    "losses-layers-in-one-gradient",
    rejects="LOSS-25",
    operation="detection_losses",
    origin="a residual to the last layer",
)
class LayersInOneGradient(LossesByHand):
    """Passes the gradient of an earlier layer's boxes to the last layer too, without a change of value."""

    def decoder(self, logits: Tensor, boxes: Tensor, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        straight = boxes[-1:] - boxes[-1:].detach()
        joined = torch.cat((boxes[:-1] + straight, boxes[-1:]))
        return super().decoder(logits, joined, batch, number, chosen)


@mutant("losses-dummy-boxes", rejects="LOSS-26", operation="detection_losses", origin="a dummy target for empty images")
class DummyBoxes(LossesByHand):
    """Pulls the first query of an image without boxes to a box of no size, so that every image has a loss."""

    def three(self, at: Predicted) -> Losses:
        losses, name = super().three(at), f"loss_bbox{at.suffix}"
        empty = torch.tensor([not count for count in at.batch.counts])
        if at.boxes.shape[1]:
            losses[name] = losses[name] + at.boxes[empty, 0].abs().sum() / at.number
        return losses


@mutant(
    "losses-mean-of-an-image",
    rejects="LOSS-26",
    operation="detection_losses",
    origin="mean over pairs times their number",
)
class MeanOfAnImage(LossesByHand):
    """Hands 0 * NaN to the gradient of images without boxes."""

    def three(self, at: Predicted) -> Losses:
        losses, name = super().three(at), f"loss_bbox{at.suffix}"
        present = torch.tensor(at.batch.counts).to(at.boxes.dtype)
        share = at.boxes.sum((1, 2)) / present  # infinite in images without boxes
        losses[name] = losses[name] + torch.where(present > 0, share * 0, 0.0).sum()
        return losses


@mutant("losses-constant-without-boxes", rejects="LOSS-27", operation="detection_losses", origin="torch.tensor(0.0)")
class ConstantWithoutBoxes(LossesByHand):
    """Returns constants where there is no box, and distributed training waits for their gradients."""

    def divided(self, total: Tensor, number: Tensor) -> Tensor:
        quotient = super().divided(total, number)
        return quotient if quotient.detach() != 0 else torch.zeros_like(quotient)


@mutant("losses-viewed", rejects="LOSS-28", operation="detection_losses", origin="view() of the predictions")
class Viewed(LossesByHand):
    """Flattens the predictions by a view, which strided ones do not have."""

    def check(self, logits: Tensor, labels: Tensor, boxes: Tensor, counts: Tensor) -> None:
        super().check(logits, labels, boxes, counts)
        logits.view(-1, logits.shape[-1])


@mutant(
    "losses-targets-converted", rejects="LOSS-28", operation="detection_losses", origin="corners written into targets"
)
class TargetsConverted(LossesByHand):
    """Leaves the targets as corners behind."""

    def leave(self, target_labels: Tensor, target_boxes: Tensor) -> None:
        with torch.no_grad():
            target_boxes.copy_(self.matching.corners(target_boxes.clone()))


@mutant(
    "losses-labels-sorted-in-place",
    rejects="LOSS-28",
    operation="detection_losses",
    origin="in-place sort of annotations",
)
class LabelsSortedInPlace(LossesByHand):
    """Sorts the caller's labels once the losses are computed."""

    def leave(self, target_labels: Tensor, target_boxes: Tensor) -> None:
        target_labels.copy_(target_labels.sort(descending=True).values)


@mutant("losses-nan-replaced", rejects="LOSS-29", operation="detection_losses", origin="transformers, nan_to_num")
class NaNReplacedInMatching(LossesByHand):
    """Matches what is no number after all else, and returns losses that are no numbers."""

    matching = NaNReplaced()


@mutant(
    "losses-last-layer-checked",
    rejects="LOSS-29",
    operation="detection_losses",
    origin="one check at the end of the model",
)
class LastLayerChecked(NaNReplacedInMatching):
    """Checks the last layer alone."""

    def layer_pairs(self, layer: int, logits: Tensor, boxes: Tensor, batch: Batch, chosen: Chosen) -> Pairs:
        if not (logits[-1].isfinite().all() and boxes[-1].isfinite().all()):
            raise ValueError("the last layer's predictions are not finite")
        return super().layer_pairs(layer, logits, boxes, batch, chosen)


@mutant(
    "losses-counts-unchecked", rejects="LOSS-30", operation="detection_losses", origin="boxes[start : start + count]"
)
class CountsUnchecked(LossesByHand):
    """Leaves boxes out that no image counts."""

    def check(self, logits: Tensor, labels: Tensor, boxes: Tensor, counts: Tensor) -> None:
        pass

    def cut(self, targets: Tensor, counts: list[int]) -> list[Tensor]:
        return super().cut(targets[: sum(counts)], counts)


@mutant("losses-slots-cut", rejects="LOSS-30", operation="detection_losses", origin="pad_size // single_pad")
class SlotsCut(LossesByHand):
    """Takes as many whole groups as there are."""

    def groups(self, slots: int, size: int) -> int:
        return slots // max(size, 1)
