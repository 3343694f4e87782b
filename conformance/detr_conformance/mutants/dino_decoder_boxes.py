"""Mutants of refinement and prediction in DINO's decoder (DEC-13 to DEC-23), and of its initialisation (DEC-32)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_conformance.mutants.dino_decoder import At, Boxes, Call, HandWrittenDecoder, Layer, Perceptron, Tokens
from detr_conformance.mutants.module import HandWrittenModule
from detr_conformance.mutants.registry import mutant


@mutant(
    "decoder-references-frozen",
    rejects="DEC-13",
    operation="dino_decoder",
    origin="Deformable DETR without box refinement",
)
class ReferencesFrozen(HandWrittenDecoder):
    """Looks from the initial boxes in every layer."""

    def looked_from(self, at: At, call: Call) -> Boxes:
        return call.initial


@mutant(
    "decoder-refines-the-initial-boxes",
    rejects="DEC-13",
    operation="dino_decoder",
    origin="init_reference in the place of the running one",
)
class RefinesTheInitialBoxes(HandWrittenDecoder):
    """Adds every layer's offset to the initial boxes."""

    def refined(self, at: At, out: Tokens, state: Tokens, call: Call) -> Boxes:
        return super().refined(at._replace(fed=call.initial), out, state, call)


@mutant(
    "decoder-refines-from-the-norm",
    rejects="DEC-14",
    operation="dino_decoder",
    origin="one call of the box head a layer, on the normed output",
)
class RefinesFromTheNorm(HandWrittenDecoder):
    """Gives the box head the normed output for refinement too."""

    def refined(self, at: At, out: Tokens, state: Tokens, call: Call) -> Boxes:
        return super().refined(at, state, state, call)


@mutant(
    "decoder-delta-after-the-sigmoid",
    rejects="DEC-15",
    operation="dino_decoder",
    origin="offsets in coordinates, clamped to the image",
)
class DeltaAfterTheSigmoid(HandWrittenDecoder):
    """Adds what the head returns to the coordinates."""

    def moved(self, delta: Boxes, boxes: Boxes) -> Boxes:
        return (boxes + delta).clamp(0, 1)


@mutant(
    "decoder-offsets-of-region-proposals",
    rejects="DEC-15",
    operation="dino_decoder",
    origin="boxes of R-CNN: centre by the size, size by exp",
)
class RegionOffsets(HandWrittenDecoder):
    """Moves centres by a share of the size, and sizes by a factor."""

    def moved(self, delta: Boxes, boxes: Boxes) -> Boxes:
        delta = delta.to(boxes.dtype)
        return torch.cat((boxes[..., :2] + delta[..., :2] * boxes[..., 2:], boxes[..., 2:] * delta[..., 2:].exp()), -1)


@mutant(
    "decoder-eps-of-deformable-detr",
    rejects="DEC-16",
    operation="dino_decoder",
    origin="inverse_sigmoid(x, eps=1e-5), the default of most libraries",
)
class EpsOfDeformableDETR(HandWrittenDecoder):
    """Clamps at 1e-5 whatever the configuration says."""

    def eps(self) -> float:
        return 1e-5


@mutant(
    "decoder-two-epsilons",
    rejects="DEC-16",
    operation="dino_decoder",
    origin="mmdetection: refines with 1e-3, predicts with 1e-5",
)
class TwoEpsilons(HandWrittenDecoder):
    """Clamps at 1e-5 for the prediction."""

    def predicted(self, at: At, state: Tokens, refined: Boxes) -> Boxes:
        inside = at.returned.clamp(0, 1)
        logit = inside.clamp(min=1e-5).log() - (1 - inside).clamp(min=1e-5).log()
        return (self.delta(self.head_of(at.number), state).to(logit.dtype) + logit).sigmoid()


# -- predictions ----------------------------------------------------------------------------------------------


@mutant("decoder-norm-missing", rejects="DEC-17", operation="dino_decoder", origin="Deformable DETR's decoder")
class NormMissing(HandWrittenDecoder):
    """Predicts from the bare output."""

    def normalised(self, out: Tokens) -> Tokens:
        return out


@mutant(
    "decoder-eps-of-the-norm",
    rejects="DEC-17",
    operation="dino_decoder",
    origin="a fused norm with the eps of another model",
)
class EpsOfTheNorm(HandWrittenDecoder):
    """Adds 1e-6 to the variance in the last norm."""

    def normalised(self, out: Tokens) -> Tokens:
        return F.layer_norm(out, out.shape[-1:], self.norm.weight, self.norm.bias, 1e-6)


@mutant(
    "decoder-scores-without-norm",
    rejects="DEC-17",
    operation="dino_decoder",
    origin="class head inside the loop, before the norm",
)
class ScoresWithoutNorm(HandWrittenDecoder):
    """Takes the scores from the bare output."""

    def scores(self, at: At, out: Tokens, state: Tokens) -> Tensor:
        return super().scores(at, out, out)


@mutant("decoder-norm-fed-forward", rejects="DEC-18", operation="dino_decoder", origin="output = self.norm(output)")
class NormFedForward(HandWrittenDecoder):
    """Hands the normed output to the next layer."""

    def passed_on(self, out: Tokens, state: Tokens) -> Tokens:
        return state


@mutant(
    "decoder-predicts-the-refined-box",
    rejects="DEC-19",
    operation="dino_decoder",
    origin="RT-DETR: intermediate_reference_points are the predictions",
)
class PredictsTheRefinedBox(HandWrittenDecoder):
    """Takes the refined box for the prediction."""

    def predicted(self, at: At, state: Tokens, refined: Boxes) -> Boxes:
        return refined


@mutant(
    "decoder-predicts-from-the-refined-box",
    rejects="DEC-19",
    operation="dino_decoder",
    origin="inter_references[level] for inter_references[level - 1]",
)
class PredictsFromTheRefinedBox(HandWrittenDecoder):
    """Adds the offset to the box that the same layer has already refined."""

    def predicted(self, at: At, state: Tokens, refined: Boxes) -> Boxes:
        return super().predicted(at._replace(returned=refined), state, refined)


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
