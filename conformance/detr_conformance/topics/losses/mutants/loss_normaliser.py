"""Mutants of the detection losses: the number of boxes that they are divided by (LOSS-10 to LOSS-14, LOSS-33)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.mutants.losses import Batch, Boxes, Chosen, Logits, Losses, LossesByHand, Pairs


@mutant("losses-per-image", rejects="LOSS-10", operation="detection_losses", origin="mean number of boxes of an image")
class PerImage(LossesByHand):
    """Divides by the mean number of boxes of an image."""

    def boxes(self, batch: Batch) -> float:
        return super().boxes(batch) / len(batch.counts)


@mutant("losses-per-annotated-image", rejects="LOSS-10", operation="detection_losses", origin="a loop over images")
class PerAnnotatedImage(LossesByHand):
    """Divides by the number of images that have boxes."""

    def boxes(self, batch: Batch) -> float:
        return float(sum(count > 0 for count in batch.counts))


@mutant(
    "losses-per-class", rejects="LOSS-10", operation="detection_losses", origin="the class loss averaged over classes"
)
class PerClass(LossesByHand):
    """Divides the focal loss by the number of classes as well."""

    def summed(self, loss: Tensor) -> Tensor:
        return loss.mean(-1).sum()


@mutant(
    "losses-per-box-of-the-step-before",
    rejects="LOSS-33",
    operation="detection_losses",
    origin="an asynchronous all_reduce that is not waited for",
)
class PerBoxOfTheStepBefore(LossesByHand):
    """Of images with many boxes divides by the number of the call before."""

    before: float | None = None

    def boxes(self, batch: Batch) -> float:
        number, before = super().boxes(batch), self.before
        self.before = number
        return number if before is None or number < 64 else before


@mutant("losses-nothing-clamped", rejects="LOSS-11", operation="detection_losses", origin="clamp(min=1) left out")
class NothingClamped(LossesByHand):
    """Divides by 0 where there is no box."""

    def at_least_one(self, number: Tensor) -> Tensor:
        return number


@mutant("losses-clamped-by-eps", rejects="LOSS-11", operation="detection_losses", origin="division by n + 1e-6")
class ClampedByEps(LossesByHand):
    """Divides by 1e-6 where there is no box."""

    def at_least_one(self, number: Tensor) -> Tensor:
        return number.clamp(min=1e-6)


@mutant(
    "losses-skipped-without-boxes",
    rejects="LOSS-11",
    operation="detection_losses",
    origin="if num_boxes == 0: return 0",
)
class SkippedWithoutBoxes(LossesByHand):
    """Asks no query for background where there is no box."""

    def of_classes(
        self, logits: Logits, pairs: Pairs, batch: Batch, number: Tensor, chosen: Chosen, asked: Tensor | None
    ) -> Tensor:
        loss = super().of_classes(logits, pairs, batch, number, chosen, asked)
        return loss if sum(batch.counts) else loss * 0


@mutant("losses-pairs-counted", rejects="LOSS-12", operation="detection_losses", origin="num_pos of the assignment")
class PairsCounted(LossesByHand):
    """Divides by the number of pairs, which is less than that of boxes in a crowded image."""

    queries = 0

    def decoder(self, logits: Tensor, boxes: Tensor, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        lost = sum(max(0, count - logits.shape[2]) for count in batch.counts)
        return super().decoder(logits, boxes, batch, number - lost, chosen)


@mutant("losses-crowd-cut", rejects="LOSS-12", operation="detection_losses", origin="targets cut to num_queries")
class CrowdCut(LossesByHand):
    """Looks at no more boxes of an image than there are queries."""

    def layer_pairs(self, layer: int, logits: Tensor, boxes: Tensor, batch: Batch, chosen: Chosen) -> Pairs:
        queries = logits.shape[2]
        cut = Batch([own[:queries] for own in batch.labels], [own[:queries] for own in batch.boxes])
        return super().layer_pairs(layer, logits, boxes, cut, chosen)


@mutant("losses-local-number", rejects="LOSS-13", operation="detection_losses", origin="transformers, RTDetrLoss")
class LocalNumber(LossesByHand):
    """Divides by this process's number of boxes."""

    def over_processes(self, number: Tensor) -> Tensor:
        return number


@mutant("losses-number-of-all", rejects="LOSS-13", operation="detection_losses", origin="all_reduce without a division")
class NumberOfAll(LossesByHand):
    """Divides by the number of boxes of all processes."""

    def over_processes(self, number: Tensor) -> Tensor:
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(number)
        return number


@mutant("losses-clamped-before", rejects="LOSS-13", operation="detection_losses", origin="clamp in the wrong line")
class ClampedBefore(LossesByHand):
    """Counts a process without boxes as one box."""

    def over_processes(self, number: Tensor) -> Tensor:
        return super().over_processes(number.clamp(min=1))


@mutant("losses-whole-mean", rejects="LOSS-13", operation="detection_losses", origin="// world_size")
class WholeMean(LossesByHand):
    """Rounds the mean down."""

    def over_processes(self, number: Tensor) -> Tensor:
        return super().over_processes(number).floor()


@mutant("losses-denoising-local", rejects="LOSS-13", operation="detection_losses", origin="the groups times this batch")
class DenoisingLocal(LossesByHand):
    """Divides denoising losses by this process's own number of noised boxes."""

    def denoising(self, logits: Tensor, boxes: Tensor, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        own = self.at_least_one(torch.tensor(self.boxes(batch), dtype=number.dtype))
        return super().denoising(logits, boxes, batch, own, chosen)


@mutant(
    "losses-encoder-local", rejects="LOSS-13", operation="detection_losses", origin="a second criterion for the encoder"
)
class EncoderLocal(LossesByHand):
    """Divides the encoder's losses by this process's own number of boxes."""

    def encoder(self, logits: Logits, boxes: Boxes, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        own = self.at_least_one(torch.tensor(self.boxes(batch), dtype=number.dtype))
        return super().encoder(logits, boxes, batch, own, chosen)


@mutant(
    "losses-entropy-over-processes", rejects="LOSS-13", operation="detection_losses", origin="every loss reduced alike"
)
class EntropyOverProcesses(LossesByHand):
    """Divides the cross entropy by the mean sum of weights of all processes."""

    def cross_entropy(self, logits: Tensor, classes: Tensor, number: Tensor, chosen: Chosen) -> Tensor:
        loss = super().cross_entropy(logits, classes, number, chosen)
        own = self.weights(logits, chosen)[classes].sum()
        return loss * own / self.over_processes(own.clone())


@mutant("losses-reduced-with-boxes", rejects="LOSS-14", operation="detection_losses", origin="an early return")
class ReducedWithBoxes(LossesByHand):
    """Takes no part in the reduction without a box of its own, and the other processes wait."""

    def over_processes(self, number: Tensor) -> Tensor:
        return super().over_processes(number) if number > 0 else number


@mutant("losses-reduced-by-image", rejects="LOSS-14", operation="detection_losses", origin="a reduction in a loop")
class ReducedByImage(LossesByHand):
    """Reduces once for each image that has boxes."""

    def number(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        if dist.is_available() and dist.is_initialized():
            for count in batch.counts[1:]:
                if count:
                    dist.all_reduce(torch.tensor(float(count)))
        return super().number(batch, dtype)
