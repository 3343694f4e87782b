"""Mutants of the number of boxes, of the layers and of the encoder (LOSS-10 to LOSS-18)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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


@mutant("losses-matched-by-boxes", rejects="LOSS-15", operation="detection_losses", origin="class-agnostic matching")
class MatchedByBoxes(LossesByHand):
    """Leaves the class cost out of the matching."""

    def costs(self, chosen: Chosen) -> dict[str, Any]:
        return super().costs(chosen) | {"cost_class": 0.0}


@mutant(
    "losses-matched-by-other-cost", rejects="LOSS-15", operation="detection_losses", origin="transformers, segmentation"
)
class MatchedByOtherCost(LossesByHand):
    """Matches by the softmax cost whatever the loss is."""

    def costs(self, chosen: Chosen) -> dict[str, Any]:
        return super().costs(chosen) | {"class_cost": "softmax"}


@mutant("losses-matched-without-giou", rejects="LOSS-15", operation="detection_losses", origin="set_cost_giou = 0")
class MatchedWithoutGIoU(LossesByHand):
    """Leaves the GIoU out of the matching."""

    def costs(self, chosen: Chosen) -> dict[str, Any]:
        return super().costs(chosen) | {"cost_giou": 0.0}


@mutant(
    "losses-last-match-for-all", rejects="LOSS-16", operation="detection_losses", origin="one matching, to save time"
)
class LastMatchForAll(LossesByHand):
    """Matches the last layer and takes its pairs for all."""

    def layer_pairs(self, layer: int, logits: Tensor, boxes: Tensor, batch: Batch, chosen: Chosen) -> Pairs:
        return super().layer_pairs(len(logits) - 1, logits, boxes, batch, chosen)


@mutant("losses-first-match-for-all", rejects="LOSS-16", operation="detection_losses", origin="group-wise assignment")
class FirstMatchForAll(LossesByHand):
    """Matches the first layer and takes its pairs for all."""

    def layer_pairs(self, layer: int, logits: Tensor, boxes: Tensor, batch: Batch, chosen: Chosen) -> Pairs:
        return super().layer_pairs(0, logits, boxes, batch, chosen)


@mutant("losses-mean-match", rejects="LOSS-16", operation="detection_losses", origin="costs averaged over layers")
class MeanMatch(LossesByHand):
    """Matches the average of the layers' predictions."""

    def layer_pairs(self, layer: int, logits: Tensor, boxes: Tensor, batch: Batch, chosen: Chosen) -> Pairs:
        return self.pairs(logits.mean(0), boxes.mean(0), batch, chosen)


@mutant("losses-layer-skipped", rejects="LOSS-16", operation="detection_losses", origin="range(1, num_layers)")
class LayerSkipped(LossesByHand):
    """Takes the second layer where the first is asked for."""

    def layers(self, prefix: str, number: int) -> list[tuple[str, int]]:
        return [(suffix, max(layer, min(1, number - 1))) for suffix, layer in super().layers(prefix, number)]


@mutant("losses-counted-backwards", rejects="LOSS-16", operation="detection_losses", origin="outputs[::-1]")
class CountedBackwards(LossesByHand):
    """Numbers the earlier layers from the end."""

    def layers(self, prefix: str, number: int) -> list[tuple[str, int]]:
        return [(prefix, number - 1)] + [(f"{prefix}_{layer}", number - 2 - layer) for layer in range(number - 1)]


@mutant(
    "losses-encoder-not-matched", rejects="LOSS-17", operation="detection_losses", origin="the decoder's pairs reused"
)
class EncoderNotMatched(LossesByHand):
    """Takes the pairs of the last decoder layer for the encoder."""

    def decoder(self, logits: Tensor, boxes: Tensor, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        self.last = self.pairs(logits[-1], boxes[-1], batch, chosen)
        return super().decoder(logits, boxes, batch, number, chosen)

    def encoder(self, logits: Logits, boxes: Boxes, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        return self.three("_enc", logits, boxes, self.last, batch, number, chosen)


@mutant(
    "losses-encoder-objectness-always",
    rejects="LOSS-17",
    operation="detection_losses",
    origin="Deformable DETR's criterion",
)
class ObjectnessAlways(LossesByHand):
    """Asks the encoder for objects only."""

    def encoder(self, logits: Logits, boxes: Boxes, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        return super().encoder(logits, boxes, batch, number, replace(chosen, encoder_targets="objectness"))


@mutant("losses-encoder-per-token", rejects="LOSS-17", operation="detection_losses", origin="a mean over tokens")
class EncoderPerToken(LossesByHand):
    """Averages the encoder's class loss over tokens."""

    def encoder(self, logits: Logits, boxes: Boxes, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        losses = super().encoder(logits, boxes, batch, number, chosen)
        return losses | {"loss_class_enc": losses["loss_class_enc"] / logits.shape[1]}


@mutant("losses-objectness-of-one-channel", rejects="LOSS-18", operation="detection_losses", origin="a binary head")
class OneChannel(LossesByHand):
    """Asks channel 0 alone, and not the others for their silence."""

    def encoder(self, logits: Logits, boxes: Boxes, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        if chosen.encoder_targets != "objectness" or chosen.class_loss != "focal":
            return super().encoder(logits, boxes, batch, number, chosen)
        return super().encoder(logits[..., :1], boxes, batch, number, chosen)


@mutant(
    "losses-objectness-ignored",
    rejects="LOSS-18",
    operation="detection_losses",
    origin="classes for the encoder always",
)
class ObjectnessIgnored(LossesByHand):
    """Keeps the classes for the encoder."""

    def objects(self, batch: Batch) -> Batch:
        return batch


@mutant(
    "losses-objectness-remains",
    rejects="LOSS-18",
    operation="detection_losses",
    origin="detrex, labels zeroed in place",
)
class ObjectnessRemains(LossesByHand):
    """Makes all boxes members of class 0 for good, also for the denoising losses that follow."""

    def objects(self, batch: Batch) -> Batch:
        batch.labels = super().objects(batch).labels
        return batch


@mutant(
    "losses-encoder-matched-as-usual",
    rejects="LOSS-15",
    operation="detection_losses",
    origin="a second matcher for the encoder, made without the configuration",
)
class EncoderMatchedAsUsual(LossesByHand):
    """Matches the encoder with the default weights."""

    def encoder(self, logits: Logits, boxes: Boxes, batch: Batch, number: Tensor, chosen: Chosen) -> Losses:
        return super().encoder(
            logits, boxes, batch, number, replace(chosen, cost_class=2.0, cost_bbox=5.0, cost_giou=2.0)
        )


@mutant(
    "losses-matched-by-usual-alpha",
    rejects="LOSS-15",
    operation="detection_losses",
    origin="DINO: alpha of the matcher has a default of its own",
)
class MatchedByUsualAlpha(LossesByHand):
    """Has alpha and gamma for the loss, and 0.25 and 2 for the matching."""

    def costs(self, chosen: Chosen) -> dict[str, Any]:
        return super().costs(chosen) | {"alpha": 0.25, "gamma": 2.0}


@mutant(
    "losses-earlier-layers-matched-as-usual",
    rejects="LOSS-15",
    operation="detection_losses",
    origin="the auxiliary loop calls the matcher by its defaults",
)
class EarlierLayersMatchedAsUsual(LossesByHand):
    """Matches all layers but the last with the default weights."""

    def layer_pairs(self, layer: int, logits: Tensor, boxes: Tensor, batch: Batch, chosen: Chosen) -> Pairs:
        if layer < len(logits) - 1:
            chosen = replace(chosen, cost_class=2.0, cost_bbox=5.0, cost_giou=2.0)
        return super().layer_pairs(layer, logits, boxes, batch, chosen)
