"""Mutants of refinement and prediction in DINO's decoder (DEC-13 to DEC-19)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.queries.mutants.decoder import At, Boxes, Call, HandWrittenDecoder, Tokens


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
    "decoder-fed-boxes-off-the-border",
    rejects="DEC-16",
    operation="dino_decoder",
    origin="references clamped to [0.01, 0.99] between layers, against infinities",
)
class FedBoxesOffTheBorder(HandWrittenDecoder):
    """Feeds the next layer boxes that keep a hundredth away from 0 and 1."""

    def next_references(self, refined: Boxes) -> tuple[Boxes, Boxes]:
        fed, returned = super().next_references(refined)
        return fed.clamp(0.01, 0.99), returned
