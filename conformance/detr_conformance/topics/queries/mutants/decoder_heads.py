"""Mutants of the heads of DINO's decoder, of what it returns, and of its initialisation (DEC-20 to DEC-23, DEC-32)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.module import HandWrittenModule
from detr_conformance.topics.queries.mutants.decoder import (
    At,
    Boxes,
    Call,
    HandWrittenDecoder,
    Layer,
    Perceptron,
    Tokens,
)


@mutant(
    "decoder-refines-with-the-first-head",
    rejects="DEC-20",
    operation="dino_decoder",
    origin="bbox_embed[0] in the loop of layers, where heads were once shared",
)
class RefinesWithTheFirstHead(HandWrittenDecoder):
    """Refines with box head 0 in every layer."""

    def refined(self, at: At, out: Tokens, state: Tokens, call: Call) -> Boxes:
        return self.moved(self.delta(0, out), at.fed)


@mutant(
    "decoder-last-class-head",
    rejects="DEC-20",
    operation="dino_decoder",
    origin="class_embed[-1] for all layers",
)
class LastClassHead(HandWrittenDecoder):
    """Scores every layer with the last class head."""

    def scores(self, at: At, out: Tokens, state: Tokens) -> Tensor:
        return self.class_embed[-1](state)


@mutant(
    "decoder-shared-head-trained-once",
    rejects="DEC-21",
    operation="dino_decoder",
    origin="a shared head whose copies of later layers are no parameters",
)
class SharedHeadTrainedOnce(HandWrittenDecoder):
    """Trains a shared box head through the calls of the first layer alone."""

    def delta(self, head: int, tokens: Tokens) -> Boxes:
        if not self.config.shared_heads or not self.later:
            return super().delta(head, tokens)
        fixed = {name: parameter.detach() for name, parameter in self.bbox_embed[head].named_parameters()}
        return torch.func.functional_call(self.bbox_embed[head], fixed, (tokens,))

    def layer(self, at: At, position: Tokens, call: Call) -> Tokens:
        self.later = at.number > 0
        return super().layer(at, position, call)


@mutant(
    "decoder-references-without-the-initial",
    rejects="DEC-22",
    operation="dino_decoder",
    origin="inter_references without init_reference, as transformers returns them",
)
class WithoutTheInitial(HandWrittenDecoder):
    """Begins with the boxes that the first layer has refined, and has the last ones twice."""

    def listed(self, references: list[Boxes], call: Call) -> list[Boxes]:
        return [*references[1:], references[-1]]


@mutant(
    "decoder-references-on-the-padded-map",
    rejects="DEC-22",
    operation="dino_decoder",
    origin="reference_points_input[:, :, 0] collected",
)
class OnThePaddedMap(HandWrittenDecoder):
    """Returns references relative to the padded map of level 0."""

    def listed(self, references: list[Boxes], call: Call) -> list[Boxes]:
        return [self.scaled(boxes, call.ratios[:, :1]) for boxes in references]


@mutant("decoder-squeezed", rejects="DEC-23", operation="dino_decoder", origin="squeeze() of the stacked layers")
class Squeezed(HandWrittenDecoder):
    """Loses the axis of layers where there is one."""

    def stacked(self, layers: list[Tensor]) -> Tensor:
        return super().stacked(layers).squeeze(0)


@mutant(
    "decoder-class-bias-zero", rejects="DEC-32", operation="dino_decoder", origin="nn.Linear as torch initialises it"
)
class ClassBiasZero(HandWrittenDecoder):
    """Begins with scores of one half."""

    def initialise_scores(self, head: nn.Module) -> None:
        assert isinstance(head, nn.Linear)
        head.bias.zero_()


@mutant(
    "decoder-boxes-begin-anywhere",
    rejects="DEC-32",
    operation="dino_decoder",
    origin="the last layer of the MLP as torch initialises it",
)
class BoxesBeginAnywhere(HandWrittenDecoder):
    """Leaves the last layer of the box heads random."""

    def initialise_deltas(self, head: nn.Module) -> None:
        assert isinstance(head, Perceptron)


@mutant(
    "decoder-xavier-over-all",
    rejects="DEC-32",
    operation="dino_decoder",
    origin="DINO issue 197: a loop over all matrices after the deformable attentions",
)
class XavierOverAll(HandWrittenDecoder):
    """Replaces the first offsets and weights of deformable attention."""

    def initialise(self) -> None:
        for layer in self.layers:
            assert isinstance(layer, Layer)
            attention = layer.attentions[1]
            assert isinstance(attention, HandWrittenModule)
            for linear in (attention.sampling_offsets, attention.attention_weights):
                nn.init.xavier_uniform_(linear.weight)
        super().initialise()
