"""Mutants of where the layers of DINO's decoder look, and of their query positions (DEC-7 to DEC-12, DEC-33)."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.queries.mutants.decoder import At, Boxes, Call, HandWrittenDecoder, Tokens


@mutant(
    "decoder-ratios-of-the-first-level",
    rejects="DEC-7",
    operation="dino_decoder",
    origin="valid_ratios[:, 0] for all levels",
)
class RatiosOfTheFirstLevel(HandWrittenDecoder):
    """Takes the ratios of level 0 for all levels."""

    def sampling_ratio(self, call: Call, level: int) -> Tensor:
        return super().sampling_ratio(call, 0)


@mutant("decoder-ratios-h-w", rejects="DEC-7", operation="dino_decoder", origin="ratios as (h, w), like spatial_shapes")
class RatiosHeightFirst(HandWrittenDecoder):
    """Reads ratios as (h, w)."""

    def sampling_ratio(self, call: Call, level: int) -> Tensor:
        return super().sampling_ratio(call, level).flip(-1)


@mutant(
    "decoder-sizes-unscaled",
    rejects="DEC-7",
    operation="dino_decoder",
    origin="reference_points * valid_ratios as for points, the size as it is",
)
class SizesUnscaled(HandWrittenDecoder):
    """Scales the centre of a box and not its size."""

    def sampling_references(self, at: At, call: Call) -> Tensor:
        scaled = super().sampling_references(at, call)
        size = at.fed[:, :, None, 2:].expand_as(scaled[..., 2:])
        return torch.cat((scaled[..., :2], size), -1)


@mutant(
    "decoder-boxes-of-a-fiftieth", rejects="DEC-33", operation="dino_decoder", origin="clamp(min=...) on sizes of boxes"
)
class BoxesOfAFiftieth(HandWrittenDecoder):
    """Looks into boxes of at least a fiftieth of the map."""

    def sampling_references(self, at: At, call: Call) -> Tensor:
        scaled = super().sampling_references(at, call)
        return torch.cat((scaled[..., :2], scaled[..., 2:].clamp(min=0.02)), -1)


@mutant(
    "decoder-positions-once",
    rejects="DEC-8",
    operation="dino_decoder",
    origin="Deformable DETR: one query_pos for all layers",
)
class PositionsOnce(HandWrittenDecoder):
    """Makes positions of the initial boxes for all layers."""

    def boxes_of_positions(self, at: At, call: Call) -> Boxes:
        return call.initial


@mutant(
    "decoder-positions-x-before-y",
    rejects="DEC-9",
    operation="dino_decoder",
    origin="get_sine_pos_embed without exchange_xy",
)
class PositionsXBeforeY(HandWrittenDecoder):
    """Gives the channels of x before those of y."""

    def embedded(self, boxes: Boxes) -> Tokens:
        return super().embedded(boxes[..., [1, 0, 2, 3]])


@mutant(
    "decoder-positions-of-logits",
    rejects="DEC-9",
    operation="dino_decoder",
    origin="references kept unsigmoided, embedded as they are",
)
class PositionsOfLogits(HandWrittenDecoder):
    """Embeds the logits of the boxes."""

    def embedded(self, boxes: Boxes) -> Tokens:
        return super().embedded(self.logit(boxes))


@mutant(
    "decoder-positions-of-centres",
    rejects="DEC-9",
    operation="dino_decoder",
    origin="Conditional DETR's embedding, padded to the width of the perceptron",
)
class PositionsOfCentres(HandWrittenDecoder):
    """Leaves width and height out of the position."""

    def embedded(self, boxes: Boxes) -> Tokens:
        y_x, w_h = super().embedded(boxes).chunk(2, -1)
        return torch.cat((y_x, torch.zeros_like(w_h)), -1)


@mutant(
    "decoder-positions-scaled-by-content",
    rejects="DEC-9",
    operation="dino_decoder",
    origin="DAB-DETR's factor from the second layer on, as a tanh of the content",
)
class PositionScaledByContent(HandWrittenDecoder):
    """Multiplies positions by a function of the content after the first layer."""

    def position(self, at: At, call: Call) -> Tokens:
        position = super().position(at, call)
        return position if at.number == 0 else position * (1 + at.stream.tanh())


@mutant(
    "decoder-mean-ratio-embedded",
    rejects="DEC-10",
    operation="dino_decoder",
    origin="reference_points_input.mean(2) before the embedding",
)
class MeanRatioEmbedded(HandWrittenDecoder):
    """Embeds boxes relative to the mean of all padded maps."""

    def embedding_ratio(self, call: Call) -> Tensor:
        return call.ratios.mean(1, keepdim=True)


@mutant(
    "decoder-never-scaled-positions",
    rejects="DEC-10",
    operation="dino_decoder",
    origin="the padding-invariant form with published weights",
)
class NeverScaledPositions(HandWrittenDecoder):
    """Embeds boxes relative to the image, whatever the configuration says."""

    def embedded_boxes(self, at: At, call: Call) -> Boxes:
        return self.boxes_of_positions(at, call)


@mutant(
    "decoder-always-scaled-positions",
    rejects="DEC-11",
    operation="dino_decoder",
    origin="DINO, which has no other form",
)
class AlwaysScaledPositions(HandWrittenDecoder):
    """Embeds boxes relative to the padded map, whatever the configuration says."""

    def embedded_boxes(self, at: At, call: Call) -> Boxes:
        return self.scaled(self.boxes_of_positions(at, call), self.embedding_ratio(call))


@mutant(
    "decoder-attends-to-the-whole-map",
    rejects="DEC-12",
    operation="dino_decoder",
    origin="RT-DETR: no valid ratios in the decoder",
)
class WholeMap(HandWrittenDecoder):
    """Looks from boxes as if images filled their maps."""

    def sampling_ratio(self, call: Call, level: int) -> Tensor:
        return torch.ones_like(super().sampling_ratio(call, level))


@mutant(
    "decoder-least-size-of-the-map",
    rejects="DEC-12",
    operation="dino_decoder",
    origin="a least size of one cell, in units of the padded map",
)
class LeastSize(HandWrittenDecoder):
    """Gives boxes a size of at least a fifth of the padded map."""

    def sampling_references(self, at: At, call: Call) -> Tensor:
        scaled = super().sampling_references(at, call)
        return torch.cat((scaled[..., :2], scaled[..., 2:].clamp(min=0.2)), -1)
