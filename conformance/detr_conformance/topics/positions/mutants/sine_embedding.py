"""Mutants of the sine embedding of maps (POS-1 to POS-16)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.positions.mutants.embeddings import (
    Embedded,
    Maps,
    Padding,
    Positions,
    SineByHand,
    Wave,
    Waves,
    Waving,
)

# -- channels -------------------------------------------------------------------------------------------------


@mutant(
    "sine-columns-before-rows",
    rejects="POS-1",
    operation="sine_position_embedding",
    origin="pos_x and pos_y exchanged in torch.cat",
)
class ColumnsBeforeRows(SineByHand):
    """Puts the channels of x first."""

    def result(self, y: Waves, x: Waves, mask: Padding) -> Embedded:
        return super().result(x, y, mask)


@mutant("sine-axes-alternate", rejects="POS-1", operation="sine_position_embedding", origin="torch.stack for torch.cat")
class AxesAlternate(SineByHand):
    """Interleaves the channels of the two axes."""

    def result(self, y: Waves, x: Waves, mask: Padding) -> Embedded:
        return torch.stack((y, x), -1).flatten(-2).movedim(-1, 1)


class Blocks(Waving):
    """All sines, then all cosines."""

    def waves(self, position: Positions, wave: Wave) -> Waves:
        channels = super().waves(position, wave)
        return torch.cat((channels[..., 0::2], channels[..., 1::2]), -1)


@mutant(
    "sine-and-cosine-in-blocks",
    rejects="POS-2",
    operation="sine_position_embedding",
    origin="RT-DETR, ViT's sincos embedding",
)
class SineBlocks(Blocks, SineByHand):
    """Has the sines of all wavelengths first, then the cosines."""


@mutant(
    "cosine-before-sine",
    rejects="POS-2",
    operation="sine_position_embedding",
    origin="diffusers' timestep embedding (flip_sin_to_cos)",
)
class CosineFirst(SineByHand):
    """Exchanges the two channels of each pair."""

    def waves(self, position: Positions, wave: Wave) -> Waves:
        return super().waves(position, wave).unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


@mutant("only-sines", rejects="POS-2", operation="sine_position_embedding", origin="the cosine forgotten")
class OnlySines(SineByHand):
    """Takes the sine on odd channels too."""

    def waves(self, position: Positions, wave: Wave) -> Waves:
        return self.phase(position, wave).sin()


@mutant(
    "wavelength-of-each-channel",
    rejects="POS-3",
    operation="sine_position_embedding",
    origin="i / n for 2 floor(i / 2) / n",
)
class WavelengthOfEachChannel(SineByHand):
    """Gives the two channels of a pair different wavelengths."""

    def exponent(self, wave: Wave) -> Float[Tensor, " channel"]:
        return torch.arange(wave.feats).double() / wave.feats


@mutant(
    "wavelengths-of-both-axes",
    rejects="POS-3",
    operation="sine_position_embedding",
    origin="d_model where n = d_model / 2 is meant",
)
class WavelengthsOfBothAxes(SineByHand):
    """Divides the exponent by the channels of both axes."""

    def exponent(self, wave: Wave) -> Float[Tensor, " channel"]:
        return super().exponent(wave) / 2


@mutant(
    "longest-wave-at-temperature",
    rejects="POS-3",
    operation="sine_position_embedding",
    origin="tensor2tensor, add_timing_signal_1d",
)
class LongestWaveAtTemperature(SineByHand):
    """Spaces the wavelengths so that the last one is T itself."""

    def exponent(self, wave: Wave) -> Float[Tensor, " channel"]:
        pairs = wave.feats // 2
        return torch.linspace(0, 1, pairs, dtype=torch.float64).repeat_interleave(2) if pairs > 1 else torch.zeros(2)


@mutant(
    "temperature-fixed", rejects="POS-3", operation="sine_position_embedding", origin="DINO's 20 against DETR's 10000"
)
class TemperatureFixed(SineByHand):
    """Takes 10000 whatever the setting says."""

    def phase(self, position: Positions, wave: Wave) -> Waves:
        return super().phase(position, Wave(wave.feats))


# -- counts ---------------------------------------------------------------------------------------------------


@mutant("counted-from-zero", rejects="POS-4", operation="sine_position_embedding", origin="arange in place of cumsum")
class CountedFromZero(SineByHand):
    """Does not count the cell itself."""

    def count(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return super().count(valid, axis, dtype) - valid.to(dtype)


@mutant(
    "counted-along-the-other-axis",
    rejects="POS-4",
    operation="sine_position_embedding",
    origin="cumsum(1) and cumsum(2) exchanged",
)
class CountedAlongTheOtherAxis(SineByHand):
    """Counts along rows for y and along columns for x, but divides by the right extents."""

    def count(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return super().count(valid, 3 - axis, dtype)


@mutant("counted-from-the-far-end", rejects="POS-4", operation="sine_position_embedding", origin="flip around cumsum")
class CountedFromTheFarEnd(SineByHand):
    """Counts upwards and leftwards."""

    def count(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return super().count(valid.flip(axis), axis, dtype).flip(axis)


@mutant(
    "sine-mask-inverted",
    rejects="POS-5",
    operation="sine_position_embedding",
    origin="transformers' pixel_mask, True is valid",
)
class MaskInverted(SineByHand):
    """Counts the padding."""

    def valid(self, mask: Padding) -> Padding:
        return mask


@mutant(
    "sine-mask-ignored",
    rejects="POS-5",
    operation="sine_position_embedding",
    origin="mask=None at every call, as in Mask2Former of transformers",
)
class MaskIgnored(SineByHand):
    """Counts all cells of the map."""

    def valid(self, mask: Padding) -> Padding:
        return torch.ones_like(mask)


@mutant(
    "counts-of-the-first-row",
    rejects="POS-6",
    operation="sine_position_embedding",
    origin="valid ratios, taken along the first row",
)
class CountsOfTheFirstRow(SineByHand):
    """Takes the counts of each image from its first row and column."""

    def valid(self, mask: Padding) -> Padding:
        return ~(mask[:, :1] | mask[:, :, :1])


@mutant(
    "largest-count-of-the-image", rejects="POS-6", operation="sine_position_embedding", origin="one extent an image"
)
class LargestCountOfTheImage(SineByHand):
    """Divides by the largest extent in the image."""

    def extent(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return super().extent(valid, axis, dtype).amax((1, 2), keepdim=True)


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


@mutant("zero-in-padding", rejects="POS-11", operation="sine_position_embedding", origin="pos.masked_fill(mask, 0)")
class ZeroInPadding(SineByHand):
    """Erases the embedding of padded cells."""

    def result(self, y: Waves, x: Waves, mask: Padding) -> Embedded:
        return super().result(y, x, mask).masked_fill(mask[:, None], 0)


@mutant(
    "counted-on-in-padding",
    rejects="POS-11",
    operation="sine_position_embedding",
    origin="arange over the valid extent",
)
class CountedOnInPadding(SineByHand):
    """Numbers the cells of the map and divides by the valid extent."""

    def count(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        everywhere = super().count(torch.ones_like(valid), axis, dtype)
        return torch.where(valid.any(axis, keepdim=True), everywhere, 0)


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


@mutant(
    "counts-in-uint8",
    rejects="POS-13",
    operation="sine_position_embedding",
    origin="cumsum(dtype=mask.dtype) of a byte mask",
)
class CountsInUint8(SineByHand):
    """Counts modulo 256."""

    def count(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return valid.to(torch.uint8).cumsum(axis, dtype=torch.uint8).to(dtype)


@mutant(
    "counts-end-early",
    rejects="POS-13",
    operation="sine_position_embedding",
    origin="ones added one by one in half precision",
)
class CountsEndEarly(SineByHand):
    """Adds ones in the dtype of the output until its integers end, at 256 or 2048."""

    def count(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return super().count(valid, axis, dtype).clamp(max=2 / torch.finfo(self.claimed).eps)

    def extent(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return super().extent(valid, axis, dtype).clamp(max=2 / torch.finfo(self.claimed).eps)

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        self.claimed = dtype
        return super().wide(dtype)


# -- numbers and errors ---------------------------------------------------------------------------------------


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


@mutant(
    "byte-mask-accepted",
    rejects="POS-15",
    operation="sine_position_embedding",
    origin="~mask of the ByteTensor masks of old",
)
class ByteMaskAccepted(SineByHand):
    """Takes the complement of whatever it is given."""

    def check_mask(self, mask: Padding) -> None:
        pass

    def valid(self, mask: Padding) -> Padding:
        return (~mask if not mask.is_floating_point() else 1 - mask).bool()


@mutant("odd-channels-accepted", rejects="POS-16", operation="sine_position_embedding", origin="slices 0::2 and 1::2")
class OddChannelsAccepted(SineByHand):
    """Leaves the last sine without its cosine."""

    def check_channels(self, feats: int) -> None:
        pass
