"""Mutants of the sine embedding of maps: which channel holds what, and wavelengths (POS-1 to POS-3, POS-16)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.positions.mutants.embeddings import (
    Embedded,
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


# -- errors ---------------------------------------------------------------------------------------------------


@mutant("odd-channels-accepted", rejects="POS-16", operation="sine_position_embedding", origin="slices 0::2 and 1::2")
class OddChannelsAccepted(SineByHand):
    """Leaves the last sine without its cosine."""

    def check_channels(self, feats: int) -> None:
        pass
