"""Mutants of the sine embedding of maps: extents, offset, epsilon, scale, precision (POS-7 to 10, POS-12, POS-14)."""

from __future__ import annotations

import math

import torch

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.positions.mutants.embeddings import Maps, Padding, Positions, SineByHand, Wave, Waves

# -- normalisation --------------------------------------------------------------------------------------------


@mutant("extent-of-the-map", rejects="POS-7", operation="sine_position_embedding", origin="division by H and W")
class ExtentOfTheMap(SineByHand):
    """Divides by the sides of the padded map."""

    def extent(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return torch.full_like(super().extent(valid, axis, dtype), valid.shape[axis])


@mutant("extent-of-the-batch", rejects="POS-7", operation="sine_position_embedding", origin="normalised by max()")
class ExtentOfTheBatch(SineByHand):
    """Divides by the largest extent in the batch."""

    def extent(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return super().extent(valid, axis, dtype).amax().expand(len(valid), 1, 1)


@mutant(
    "extent-of-the-first-image",
    rejects="POS-7",
    operation="sine_position_embedding",
    origin="[0] left over from batch size 1",
)
class ExtentOfTheFirstImage(SineByHand):
    """Divides every image by the extents of the first."""

    def extent(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return super().extent(valid, axis, dtype)[:1]


@mutant("two-pi-missing", rejects="POS-7", operation="sine_position_embedding", origin="scale left out")
class TwoPiMissing(SineByHand):
    """Lets positions run to 1."""

    def scaled(self, count: Maps, extent: Maps, wave: Wave) -> Maps:
        return super().scaled(count, extent, wave) / (2 * math.pi)


@mutant(
    "offset-ignored",
    rejects="POS-8",
    operation="sine_position_embedding",
    origin="DETR's text under Deformable DETR's weights",
)
class OffsetIgnored(SineByHand):
    """Has no offset."""

    def scaled(self, count: Maps, extent: Maps, wave: Wave) -> Maps:
        return super().scaled(count, extent, Wave(offset=0.0))


@mutant(
    "offset-in-the-extent",
    rejects="POS-8",
    operation="sine_position_embedding",
    origin="offset added before the last count is read",
)
class OffsetInTheExtent(SineByHand):
    """Adds the offset to the extent as well."""

    def scaled(self, count: Maps, extent: Maps, wave: Wave) -> Maps:
        return super().scaled(count, extent + wave.offset, wave)


@mutant(
    "offset-after-division", rejects="POS-8", operation="sine_position_embedding", origin="a missing pair of brackets"
)
class OffsetAfterDivision(SineByHand):
    """Takes the offset for a share of the image."""

    def scaled(self, count: Maps, extent: Maps, wave: Wave) -> Maps:
        return super().scaled(count, extent, Wave()) + 2 * math.pi * wave.offset


@mutant("epsilon-as-a-clamp", rejects="POS-9", operation="sine_position_embedding", origin="clamp(min=eps)")
class EpsilonAsAClamp(SineByHand):
    """Guards the division by a lower bound, which changes nothing where the extent is a cell."""

    def scaled(self, count: Maps, extent: Maps, wave: Wave) -> Maps:
        return 2 * math.pi * (count + wave.offset) / extent.clamp(min=1e-6)


@mutant(
    "epsilon-on-the-count", rejects="POS-9", operation="sine_position_embedding", origin="eps added above and below"
)
class EpsilonOnTheCount(SineByHand):
    """Adds 1e-6 to the count too, so that the last cell lies at 2 pi exactly."""

    def scaled(self, count: Maps, extent: Maps, wave: Wave) -> Maps:
        return super().scaled(count + 1e-6, extent, wave)


@mutant(
    "epsilon-missing", rejects="POS-10", operation="sine_position_embedding", origin="division by the last count alone"
)
class EpsilonMissing(SineByHand):
    """Divides by zero where nothing is valid."""

    def scaled(self, count: Maps, extent: Maps, wave: Wave) -> Maps:
        return 2 * math.pi * (count + wave.offset) / extent


@mutant(
    "quotient-in-the-given-dtype",
    rejects="POS-10",
    operation="sine_position_embedding",
    origin="-0.5 / 1e-6 in float16",
)
class QuotientInTheGivenDtype(SineByHand):
    """Keeps the positions in the dtype of the output, where they overflow."""

    def scaled(self, count: Maps, extent: Maps, wave: Wave) -> Maps:
        return super().scaled(count, extent, wave).to(self.claimed).to(count.dtype)

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        self.claimed = dtype
        return super().wide(dtype)


@mutant(
    "offset-on-bare-counts",
    rejects="POS-12",
    operation="sine_position_embedding",
    origin="offset added before the branch",
)
class OffsetOnBareCounts(SineByHand):
    """Adds the offset without normalisation too."""

    def bare(self, count: Maps, wave: Wave) -> Maps:
        return count + wave.offset


@mutant(
    "bare-counts-scaled",
    rejects="POS-12",
    operation="sine_position_embedding",
    origin="scale multiplied behind the branch",
)
class BareCountsScaled(SineByHand):
    """Multiplies bare counts by 2 pi."""

    def bare(self, count: Maps, wave: Wave) -> Maps:
        return count * (2 * math.pi)


@mutant(
    "always-normalised",
    rejects="POS-12",
    operation="sine_position_embedding",
    origin="transformers' dab_detr and grounding_dino",
)
class AlwaysNormalised(SineByHand):
    """Has no such setting."""

    def position(self, valid: Padding, axis: int, wave: Wave, dtype: torch.dtype) -> Maps:
        return super().position(valid, axis, Wave(offset=wave.offset), dtype)


# -- precision ------------------------------------------------------------------------------------------------


@mutant(
    "sine-in-the-given-dtype",
    rejects="POS-14",
    operation="sine_position_embedding",
    origin="transformers, build_sine_position_embedding",
)
class SineInTheGivenDtype(SineByHand):
    """Computes everything but counts in the dtype of the output."""

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        return dtype


@mutant(
    "phases-in-the-given-dtype",
    rejects="POS-14",
    operation="sine_position_embedding",
    origin="dim_t in float32, the map in half",
)
class PhasesInTheGivenDtype(SineByHand):
    """Rounds the phases to the dtype of the output before the sine is taken."""

    def phase(self, position: Positions, wave: Wave) -> Waves:
        return super().phase(position, wave).to(self.claimed).to(position.dtype)

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        self.claimed = dtype
        return super().wide(dtype)
