"""Mutants of the detection losses: how each layer and the encoder are matched and asked (LOSS-15 to LOSS-18)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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
        return self.three(Predicted("_enc", logits, boxes, self.last, batch, number, chosen))


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
