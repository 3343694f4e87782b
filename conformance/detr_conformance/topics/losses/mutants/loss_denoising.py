"""Mutants of denoising, of gradients and of the frame (LOSS-19 to LOSS-30)."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.mutants.assignment import NaNReplaced
from detr_conformance.topics.losses.mutants.losses import (
    Batch,
    Boxes,
    Chosen,
    Logits,
    Losses,
    LossesByHand,
    Pairs,
    Some,
)


@mutant(
    "losses-denoising-matched",
    rejects="LOSS-19",
    operation="detection_losses",
    origin="denoising queries as any others",
)
class DenoisingMatched(LossesByHand):
    """Matches the denoising queries, so that each box has one."""

    def known(self, logits: Logits, boxes: Boxes, batch: Batch, groups: int, size: int, chosen: Chosen) -> Pairs:
        return self.pairs(logits, boxes, batch, chosen)


@mutant(
    "losses-negatives-have-boxes",
    rejects="LOSS-19",
    operation="detection_losses",
    origin="2 * groups copies of the targets",
)
class NegativesHaveBoxes(LossesByHand):
    """Pulls the negatives to their boxes too, without a label."""

    def three(
        self,
        suffix: str,
        logits: Logits,
        boxes: Boxes,
        pairs: Pairs,
        batch: Batch,
        number: Tensor,
        chosen: Chosen,
        asked: Tensor | None = None,
    ) -> Losses:
        losses = super().three(suffix, logits, boxes, pairs, batch, number, chosen, asked)
        if not suffix.startswith("_dn") or not chosen.contrastive:
            return losses
        most = max(batch.counts)
        both = [(torch.cat((query, query + most)), torch.cat((box, box))) for query, box in pairs]
        of_both = super().three(suffix, logits, boxes, both, batch, number, chosen, asked)
        return of_both | {f"loss_class{suffix}": losses[f"loss_class{suffix}"]}


@mutant(
    "losses-groups-of-positives",
    rejects="LOSS-19",
    operation="detection_losses",
    origin="single_padding and pad_size mixed up",
)
class GroupsOfPositives(LossesByHand):
    """Takes all positives to come before all negatives."""

    def first_slots(self, groups: int, size: int) -> Int[Tensor, " group"]:
        return torch.arange(groups) * max(1, size // 2)


@mutant("losses-slots-of-own-count", rejects="LOSS-19", operation="detection_losses", origin="padding forgotten")
class SlotsOfOwnCount(LossesByHand):
    """Takes an image's groups to be as large as its own number of boxes asks for."""

    def known(self, logits: Logits, boxes: Boxes, batch: Batch, groups: int, size: int, chosen: Chosen) -> Pairs:
        pairs = []
        for count in batch.counts:
            box = torch.arange(count).repeat(groups)
            own = self.group_size(count, chosen)
            pairs.append((self.first_slots(groups, own).repeat_interleave(count) + box, box))
        return pairs


@mutant(
    "losses-negatives-have-labels",
    rejects="LOSS-20",
    operation="detection_losses",
    origin="DN-DETR's criterion on contrastive queries",
)
class NegativesHaveLabels(LossesByHand):
    """Asks negatives for the label of their box."""

    def classes(self, logits: Logits, pairs: Pairs, batch: Batch, background: int) -> Int[Tensor, "batch query"]:
        classes = super().classes(logits, pairs, batch, background)
        most = max(batch.counts)
        if logits.shape[1] % max(1, 2 * most) or not most or logits.shape[1] < 2 * most:
            return classes  # no denoising queries
        groups = classes.unflatten(1, (-1, 2, most)).clone()
        groups[:, :, 1] = groups[:, :, 0]
        return groups.flatten(1)


@mutant(
    "losses-padding-has-labels", rejects="LOSS-20", operation="detection_losses", origin="padded targets of class 0"
)
class PaddingHasLabels(LossesByHand):
    """Takes padded slots for objects of class 0."""

    def denoising(self, logits: Tensor, boxes: Tensor, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        most = max(batch.counts)
        filled = Batch([F.pad(own, (0, most - len(own))) for own in batch.labels], batch.boxes)
        losses = super().denoising(logits, boxes, batch, number, chosen)
        size = self.group_size(most, chosen)
        groups = self.groups(logits.shape[2], size)
        box = torch.arange(most).repeat(groups)
        pairs = [(self.first_slots(groups, size).repeat_interleave(most) + box, box)] * len(batch.counts)
        for suffix, layer in self.layers("_dn", len(logits)):
            asked = self.asked(batch.counts, most, logits.shape[2], chosen)
            repeated = self.repeated(number, groups)
            losses[f"loss_class{suffix}"] = self.of_classes(logits[layer], pairs, filled, repeated, chosen, asked)
        return losses


@mutant(
    "losses-negatives-not-asked",
    rejects="LOSS-20",
    operation="detection_losses",
    origin="the positives' indices for both losses",
)
class NegativesNotAsked(LossesByHand):
    """Leaves negatives and padding out of the class loss."""

    def asked(self, counts: list[int], most: int, slots: int, chosen: Chosen) -> Bool[Tensor, "batch slot"] | None:
        size = self.group_size(most, chosen)
        slot = torch.arange(slots)
        return torch.stack([(slot % max(size, 1) < most) & (slot % max(most, 1) < count) for count in counts])


@mutant(
    "losses-groups-not-counted", rejects="LOSS-21", operation="detection_losses", origin="num_boxes for denoising too"
)
class GroupsNotCounted(LossesByHand):
    """Divides by the number of boxes of one group."""

    def repeated(self, number: Tensor, groups: int) -> Tensor:
        return number


@mutant(
    "losses-groups-counted-twice", rejects="LOSS-21", operation="detection_losses", origin="negatives counted as boxes"
)
class GroupsCountedTwice(LossesByHand):
    """Counts the negatives among the boxes."""

    def repeated(self, number: Tensor, groups: int) -> Tensor:
        return super().repeated(number, groups) * 2


@mutant("losses-negatives-presumed", rejects="LOSS-22", operation="detection_losses", origin="DINO's layout always")
class NegativesPresumed(LossesByHand):
    """Takes every second half of a group for negatives."""

    def denoising(self, logits: Tensor, boxes: Tensor, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        most = max(batch.counts)
        if not chosen.contrastive and most and logits.shape[2] // most % 2:
            logits, boxes = logits[:, :, :-most], boxes[:, :, :-most]
        return super().denoising(logits, boxes, batch, number, replace(chosen, contrastive=True))


@mutant(
    "losses-positives-first-only",
    rejects="LOSS-22",
    operation="detection_losses",
    origin="half of the slots are negatives",
)
class FirstHalfOnly(LossesByHand):
    """Leaves the last groups out where there are no negatives."""

    def known(self, logits: Logits, boxes: Boxes, batch: Batch, groups: int, size: int, chosen: Chosen) -> Pairs:
        return super().known(logits, boxes, batch, groups if chosen.contrastive else (groups + 1) // 2, size, chosen)


@mutant(
    "losses-padding-always-asked", rejects="LOSS-23", operation="detection_losses", origin="DINO's criterion in DN-DETR"
)
class PaddingAlwaysAsked(LossesByHand):
    """Takes padded slots for background whatever the setting says."""

    def asked(self, counts: list[int], most: int, slots: int, chosen: Chosen) -> Bool[Tensor, "batch slot"] | None:
        return None


@mutant(
    "losses-only-positives-asked",
    rejects="LOSS-23",
    operation="detection_losses",
    origin="known_bid and map_known_indice",
)
class OnlyPositivesAsked(NegativesNotAsked):
    """Leaves out the negatives with the padding."""

    def asked(self, counts: list[int], most: int, slots: int, chosen: Chosen) -> Bool[Tensor, "batch slot"] | None:
        return None if chosen.padded_slots == "background" else super().asked(counts, most, slots, chosen)


@mutant("losses-mean-of-no-slots", rejects="LOSS-24", operation="detection_losses", origin="the mean of nothing")
class MeanOfNoSlots(LossesByHand):
    """Takes sums for means times numbers, which are no number where there is nothing."""

    def summed(self, loss: Tensor) -> Tensor:
        return loss.mean() * loss.numel()


@mutant("losses-absent-without-slots", rejects="LOSS-24", operation="detection_losses", origin="if dn_meta is None")
class AbsentWithoutSlots(LossesByHand):
    """Has no denoising losses where there are no slots, and processes differ in their losses."""

    def denoising(self, logits: Tensor, boxes: Tensor, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        return super().denoising(logits, boxes, batch, number, chosen) if logits.shape[2] else {}


@mutant("losses-needs-slots", rejects="LOSS-24", operation="detection_losses", origin="pad_size // groups")
class NeedsSlots(LossesByHand):
    """Divides by the size of a group."""

    def groups(self, slots: int, size: int) -> int:
        return slots // size


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

    def three(
        self,
        suffix: str,
        logits: Logits,
        boxes: Boxes,
        pairs: Pairs,
        batch: Batch,
        number: Tensor,
        chosen: Chosen,
        asked: Tensor | None = None,
    ) -> Losses:
        losses = super().three(suffix, logits, boxes, pairs, batch, number, chosen, asked)
        empty = torch.tensor([not count for count in batch.counts])
        if boxes.shape[1]:
            losses[f"loss_bbox{suffix}"] = losses[f"loss_bbox{suffix}"] + boxes[empty, 0].abs().sum() / number
        return losses


@mutant(
    "losses-mean-of-an-image",
    rejects="LOSS-26",
    operation="detection_losses",
    origin="mean over pairs times their number",
)
class MeanOfAnImage(LossesByHand):
    """Hands 0 * NaN to the gradient of images without boxes."""

    def three(
        self,
        suffix: str,
        logits: Logits,
        boxes: Boxes,
        pairs: Pairs,
        batch: Batch,
        number: Tensor,
        chosen: Chosen,
        asked: Tensor | None = None,
    ) -> Losses:
        losses = super().three(suffix, logits, boxes, pairs, batch, number, chosen, asked)
        present = torch.tensor(batch.counts).to(boxes.dtype)
        share = boxes.sum((1, 2)) / present  # infinite in images without boxes
        losses[f"loss_bbox{suffix}"] = losses[f"loss_bbox{suffix}"] + torch.where(present > 0, share * 0, 0.0).sum()
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
