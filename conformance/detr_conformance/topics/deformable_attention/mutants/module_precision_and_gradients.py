"""Mutants of the module: precision and gradients (MSDM-17, MSDM-18, MSDM-25)."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from detr_conformance.evidence.registry import DEFAULT_FEATURES, mutant
from detr_conformance.topics.deformable_attention.mutants.module import (
    HandWrittenModule,
    Heads,
    Logits,
    Offsets,
    References,
    Tokens,
)


@mutant("projections-in-bfloat16", rejects="MSDM-17", origin="autocast left on around the module")
class ProjectionsInBfloat16(HandWrittenModule):
    """Rounds the projected value to bfloat16 in a float32 module."""

    def split(self, projected: Tokens) -> Heads:
        return super().split(projected.bfloat16().to(projected.dtype))


@mutant("fast-exponential", rejects="MSDM-17", origin="exp as (1 + x / 1024)^1024, a chain of squarings")
class FastExponential(HandWrittenModule):
    """Takes the softmax with an approximate exponential, normalised all the same."""

    def weights(self, logits: Logits) -> Logits:
        excess = logits - logits.amax((3, 4), keepdim=True)
        powers = (1 + excess / 1024).clamp(min=0) ** 1024
        return powers / powers.sum((3, 4), keepdim=True)


@mutant(
    "locations-in-bfloat16-under-autocast",
    rejects="MSDM-25",
    origin="a core that is given all its arguments in the dtype of autocast",
    features=(*DEFAULT_FEATURES, "autocast"),
)
class LocationsInBfloat16UnderAutocast(HandWrittenModule):
    """Under autocast rounds the places themselves."""

    def locations(self, reference: References, offsets: Offsets, spatial_shapes: Int[Tensor, "level 2"]) -> Tensor:
        found = super().locations(reference, offsets, spatial_shapes)
        return found.bfloat16().to(found.dtype) if torch.is_autocast_enabled(found.device.type) else found


@mutant("offsets-detached", rejects="MSDM-18", origin="locations computed under no_grad")
class OffsetsDetached(HandWrittenModule):
    """Lets no gradient through the locations: offsets and references never learn."""

    def locations(self, reference: References, offsets: Offsets, spatial_shapes: Int[Tensor, "level 2"]) -> Tensor:
        return super().locations(reference, offsets, spatial_shapes).detach()


@mutant("references-detached", rejects="MSDM-18", origin="detach of the refinement moved into the module")
class ReferencesDetached(HandWrittenModule):
    """Detaches the reference points."""

    def locations(self, reference: References, offsets: Offsets, spatial_shapes: Int[Tensor, "level 2"]) -> Tensor:
        return super().locations(reference.detach(), offsets, spatial_shapes)


@mutant("slow-offsets", rejects="MSDM-18", origin="learning rate of the offsets, 0.1 of the others, put into the graph")
class SlowOffsets(HandWrittenModule):
    """Multiplies the gradient of the offsets by 0.1, which belongs to the optimiser."""

    def offsets(self, looking: Tokens) -> Offsets:
        offsets = super().offsets(looking)
        return offsets * 0.1 + (offsets * 0.9).detach()


@mutant("box-size-detached", rejects="MSDM-18", origin="only the centre is refined")
class BoxSizeDetached(HandWrittenModule):
    """Detaches width and height of 4-d reference points."""

    def within_box(self, centre: Tensor, size: Tensor, offsets: Offsets) -> Tensor:
        return super().within_box(centre, size.detach(), offsets)
