"""Mutants of what DINO's decoder differentiates, and in which dtype it computes (DEC-24 to DEC-31)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.queries.mutants.decoder import At, Boxes, Call, HandWrittenDecoder, Tokens


@mutant(
    "decoder-nothing-detached",
    rejects="DEC-24",
    operation="dino_decoder",
    origin="look forward twice, taken to mean that nothing is detached",
)
class NothingDetached(HandWrittenDecoder):
    """Feeds boxes undetached to the next layer."""

    def next_references(self, refined: Boxes) -> tuple[Boxes, Boxes]:
        return refined, super().next_references(refined)[1]


@mutant(
    "decoder-looks-from-the-returned-box",
    rejects="DEC-24",
    operation="dino_decoder",
    origin="one list of references for sampling and prediction, the detached one for refinement alone",
)
class LooksFromTheReturnedBox(HandWrittenDecoder):
    """Samples around the undetached copy."""

    def looked_from(self, at: At, call: Call) -> Boxes:
        return at.returned


@mutant(
    "decoder-returned-box-detached",
    rejects="DEC-25",
    operation="dino_decoder",
    origin="transformers' grounding_dino: intermediate_reference_points += (reference_points,) after the detach",
)
class ReturnedBoxDetached(HandWrittenDecoder):
    """Looks forward once."""

    def next_references(self, refined: Boxes) -> tuple[Boxes, Boxes]:
        return refined.detach(), refined.detach()


@mutant(
    "decoder-prediction-detached-in-returned-references",
    rejects="DEC-25",
    operation="dino_decoder",
    origin="undetached for the predictions inside, detached in what the decoder returns",
)
class DetachedOnReturn(HandWrittenDecoder):
    """Detaches the references that it returns."""

    def listed(self, references: list[Boxes], call: Call) -> list[Boxes]:
        return [boxes.detach() for boxes in references]


@mutant(
    "decoder-always-twice",
    rejects="DEC-26",
    operation="dino_decoder",
    origin="look_forward_twice read and never used, as in DINO's code without use_detached_boxes_dec_out",
)
class AlwaysTwice(HandWrittenDecoder):
    """Ignores the setting."""

    def next_references(self, refined: Boxes) -> tuple[Boxes, Boxes]:
        return refined.detach(), refined


@mutant(
    "decoder-initial-boxes-undetached",
    rejects="DEC-27",
    operation="dino_decoder",
    origin="topk_coords without detach()",
)
class InitialBoxesUndetached(HandWrittenDecoder):
    """Predicts from initial boxes that are not detached."""

    def initial(self, boxes: Boxes) -> Boxes:
        return boxes


@mutant(
    "decoder-initial-positions-undetached",
    rejects="DEC-27",
    operation="dino_decoder",
    origin="query_pos made outside the loop, from the boxes of the encoder",
)
class InitialPositionsUndetached(HandWrittenDecoder):
    """Makes the first positions of boxes that are not detached."""

    def initial(self, boxes: Boxes) -> Boxes:
        self.attached = boxes
        return super().initial(boxes)

    def boxes_of_positions(self, at: At, call: Call) -> Boxes:
        return self.attached if at.number == 0 else at.fed


@mutant(
    "decoder-positions-of-the-returned-box",
    rejects="DEC-28",
    operation="dino_decoder",
    origin="query_pos of new_reference_points before the detach",
)
class PositionsOfTheReturnedBox(HandWrittenDecoder):
    """Makes positions of the undetached copy, through which class losses reach box heads."""

    def boxes_of_positions(self, at: At, call: Call) -> Boxes:
        return at.returned


@mutant(
    "decoder-positions-in-half",
    rejects="DEC-29",
    operation="dino_decoder",
    origin="boxes.to(query.dtype) before the sine embedding, computed in that dtype",
)
class PositionsInHalf(HandWrittenDecoder):
    """Rounds query positions as if they had a few bits."""

    def embedded(self, boxes: Boxes) -> Tokens:
        coarse = {torch.float64: torch.float32, torch.float32: torch.float16}.get(boxes.dtype, boxes.dtype)
        return super().embedded(boxes).to(coarse).to(boxes.dtype)


@mutant(
    "decoder-boxes-in-half",
    rejects="DEC-30",
    operation="dino_decoder",
    origin="transformers in half precision: references in the dtype of the model",
)
class BoxesInHalf(HandWrittenDecoder):
    """Rounds the boxes from layer to layer, and on the padded maps, to the dtype of the tokens."""

    def sampling_references(self, at: At, call: Call) -> Tensor:
        return super().sampling_references(at, call).to(at.stream.dtype)


@mutant(
    "decoder-refined-boxes-in-half",
    rejects="DEC-30",
    operation="dino_decoder",
    origin="sigmoid and logit in the dtype of the tokens",
)
class RefinedBoxesInHalf(HandWrittenDecoder):
    """Rounds what is fed to the next layer."""

    def refined(self, at: At, out: Tokens, state: Tokens, call: Call) -> Boxes:
        return super().refined(at, out, state, call).to(out.dtype).to(at.fed.dtype)


@mutant(
    "decoder-memory-detached-later",
    rejects="DEC-31",
    operation="dino_decoder",
    origin="projected memory cached by the first layer",
)
class MemoryDetachedLater(HandWrittenDecoder):
    """Has no gradient of the memory from later layers."""

    def layer_call(self, index: int, call: Call) -> Call:
        return call if index == 0 else replace(call, memory=call.memory.detach())


@mutant(
    "decoder-positions-not-trained",
    rejects="DEC-31",
    operation="dino_decoder",
    origin="no_grad around everything that concerns references",
)
class PositionsNotTrained(HandWrittenDecoder):
    """Detaches query positions with the boxes that they are made of."""

    def position(self, at: At, call: Call) -> Tokens:
        return super().position(at, call).detach()
