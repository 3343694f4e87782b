"""Mutants that are right at small sizes: levels, layers, cells, queries, images; and of the law of dropout (DEC-6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.queries.mutants.decoder import At, Boxes, Call, HandWrittenDecoder, Tokens
from detr_conformance.topics.queries.mutants.proposals_and_refinement import Indices, ProposalsByHand, SelectionByHand
from detr_conformance.topics.queries.mutants.references import Points, Ratios, ReferencesByHand

DECODER = "dino_decoder"

# -- the decoder ------------------------------------------------------------------------------------------------


@mutant("decoder-wrong-at-four-levels", rejects="DEC-7", operation=DECODER, origin="a kernel made for four levels")
class WrongAtFourLevels(HandWrittenDecoder):
    """Exchanges the ratios of the last two of exactly four levels."""

    def sampling_ratio(self, call: Call, level: int) -> Float[Tensor, "batch 1 2"]:
        exchanged = {2: 3, 3: 2}.get(level, level) if call.ratios.shape[1] == 4 else level
        return super().sampling_ratio(call, exchanged)


@mutant("decoder-odd-levels-alike", rejects="DEC-7", operation=DECODER, origin="ratios packed in pairs")
class OddLevelsAlike(HandWrittenDecoder):
    """Has the ratios of the sixth level in the seventh."""

    def sampling_ratio(self, call: Call, level: int) -> Float[Tensor, "batch 1 2"]:
        return super().sampling_ratio(call, min(level, 5))


@mutant(
    "decoder-undetached-from-fifth-layer", rejects="DEC-24", operation=DECODER, origin="another detach from layer 4"
)
class UndetachedWhenDeep(HandWrittenDecoder):
    """Feeds boxes undetached from the fifth layer on."""

    def boxes_of_positions(self, at: At, call: Call) -> Boxes:
        return at.returned if at.number >= 4 else at.fed


@mutant("decoder-deep-boxes-detached", rejects="DEC-25", operation=DECODER, origin="checkpoints every four layers")
class DetachedWhenDeep(HandWrittenDecoder):
    """Looks forward once from the sixth layer on."""

    def predicted(self, at: At, state: Tokens, refined: Boxes) -> Boxes:
        returned = at.returned.detach() if at.number >= 5 else at.returned
        return super().predicted(at._replace(returned=returned), state, refined)


@mutant("decoder-many-queries-cut", rejects="DEC-29", operation=DECODER, origin="a block of 256 threads")
class ManyQueriesCut(HandWrittenDecoder):
    """Adds nothing of the memory to queries from the 257th on."""

    def to_memory(self, at: At, x: Tokens, position: Tokens, call: Call) -> Tokens:
        found = super().to_memory(at, x, position, call)
        return torch.cat((found[:, :256], 0 * found[:, 256:]), 1)


@mutant("decoder-dropout-unscaled", rejects="DEC-6", operation=DECODER, origin="x * mask")
class DropoutUnscaled(HandWrittenDecoder):
    """Does not divide what the network keeps."""

    def dropped(self, x: Tokens) -> Tokens:
        keep = 1 - self.config.dropout
        return super().dropped(x) * (keep if self.training and keep else 1)


@mutant("decoder-whole-images-dropped", rejects="DEC-6", operation=DECODER, origin="stochastic depth, for dropout")
class WholeImagesDropped(HandWrittenDecoder):
    """Drops a channel of the network for all queries of an image."""

    def dropped(self, x: Tokens) -> Tokens:
        return x * F.dropout(torch.ones_like(x[:, :1]), self.config.dropout, self.training)


# -- what is selected -------------------------------------------------------------------------------------------


@mutant("selection-approximate", rejects="SEL-32", operation="select_queries", origin="approximate top-k of large maps")
class Approximate(SelectionByHand):
    """Takes the best of each of two halves, where there are more than 8192 cells."""

    def best(self, scores: Float[Tensor, "batch cell"], num_queries: int) -> Indices:
        cells = scores.shape[1]
        if cells <= 8192:
            return super().best(scores, num_queries)
        half = num_queries // 2
        first = super().best(scores[:, : cells // 2], half)
        second = super().best(scores[:, cells // 2 :], num_queries - half) + cells // 2
        both = torch.cat((first, second), 1)
        return both.gather(1, super().best(scores.gather(1, both), num_queries))


@mutant(
    "references-fifth-level-of-fourth", rejects="SEL-10", operation="encoder_reference_points", origin="four levels"
)
class FifthLevelOfFourth(ReferencesByHand):
    """Sees cells in the levels from the fifth on as in the fourth."""

    def seen(self, points: Points, ratios: Ratios, sizes: list[tuple[int, int]]) -> Float[Tensor, "b s l 2"]:
        level = torch.arange(ratios.shape[1]).clamp(max=3)
        return super().seen(points, ratios[:, level], sizes)


@mutant("proposals-side-of-sixth-level", rejects="SEL-28", operation="encoder_proposals", origin="a table of sides")
class SideOfFifthLevel(ProposalsByHand):
    """Has no larger boxes where an image is one of several."""

    def level_boxes(self, mask: Tensor, level: int, dtype: torch.dtype) -> Boxes:
        return super().level_boxes(mask, min(level, 3) if len(mask) > 4 else level, dtype)
