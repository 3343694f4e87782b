"""Mutants of the module: how a new one begins (MSDM-19)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.module import HandWrittenModule


@mutant("radius-from-zero", rejects="MSDM-19", origin="for i in range(P): bias *= i")
class RadiusFromZero(HandWrittenModule):
    """Begins with radius 0, so that the first point of all heads is the reference itself."""

    def radii(self, points: int) -> Float[Tensor, " point"]:
        return super().radii(points) - 1


@mutant("unit-circle-directions", rejects="MSDM-19", origin="division by max|d| forgotten")
class UnitCircleDirections(HandWrittenModule):
    """Puts the points on circles instead of squares."""

    def directions(self) -> Float[Tensor, "head 2"]:
        return torch.stack((self.angles().cos(), self.angles().sin()), -1)


@mutant("sine-before-cosine", rejects="MSDM-19", origin="(sin, cos) of the position embedding")
class SineBeforeCosine(HandWrittenModule):
    """Begins with the head that looks down, not right."""

    def directions(self) -> Float[Tensor, "head 2"]:
        return super().directions().flip(-1)


@mutant("half-turn-of-heads", rejects="MSDM-19", origin="pi * h / M")
class HalfTurnOfHeads(HandWrittenModule):
    """Distributes the heads over half a turn."""

    def angles(self) -> Float[Tensor, " head"]:
        return super().angles() / 2


@mutant("radius-grows-with-level", rejects="MSDM-19", origin="stride-dependent ranges")
class RadiusGrowsWithLevel(HandWrittenModule):
    """Doubles the radius from level to level."""

    def initialise(self) -> None:
        super().initialise()
        offsets = self.sampling_offsets.bias.view(*self.samples, 2)
        offsets.mul_(2.0 ** torch.arange(self.samples[1])[:, None, None])


@mutant("erased-by-xavier", rejects="MSDM-19", origin="DINO issues 17, 197")
class ErasedByXavier(HandWrittenModule):
    """Runs the model's Xavier loop over all matrices after its own initialisation."""

    def initialise(self) -> None:
        super().initialise()
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)


@mutant("linear-default-bias", rejects="MSDM-19", origin="only the weights of the projections initialised")
class LinearDefaultBias(HandWrittenModule):
    """Leaves the biases of the projections as nn.Linear makes them."""

    def initialise(self) -> None:
        super().initialise()
        bound = self.config.embed_dim**-0.5
        for projection in (self.value_proj, self.output_proj):
            nn.init.uniform_(projection.bias, -bound, bound)


@mutant("xavier-normal", rejects="MSDM-19", origin="xavier_normal_ for xavier_uniform_")
class XavierNormal(HandWrittenModule):
    """Draws the projections from a normal distribution of the same variance."""

    def initialise(self) -> None:
        super().initialise()
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_normal_(projection.weight)
