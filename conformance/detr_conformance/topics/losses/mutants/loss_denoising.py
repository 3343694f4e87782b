"""Mutants of the detection losses: the denoising queries (LOSS-19 to LOSS-24)."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
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

    def three(self, at: Predicted) -> Losses:
        losses = super().three(at)
        if not at.suffix.startswith("_dn") or not at.chosen.contrastive:
            return losses
        most = max(at.batch.counts)
        both = [(torch.cat((query, query + most)), torch.cat((box, box))) for query, box in at.pairs]
        of_both = super().three(replace(at, pairs=both))
        return of_both | {f"loss_class{at.suffix}": losses[f"loss_class{at.suffix}"]}


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
