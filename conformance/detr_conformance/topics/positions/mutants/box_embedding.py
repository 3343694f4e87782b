"""Mutants of the sine embedding of boxes (POS-16 to POS-23)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.positions.mutants.embeddings import BoxByHand, Positions, Wave, Waves
from detr_conformance.topics.positions.mutants.sine_channels import Blocks


@mutant(
    "box-x-before-y",
    rejects="POS-17",
    operation="box_position_embedding",
    origin="detrex, get_sine_pos_embed(exchange_xy=False)",
)
class XBeforeY(BoxByHand):
    """Keeps the order of the input."""

    def ordered(self, boxes: Tensor) -> Tensor:
        return boxes


@mutant("box-h-before-w", rejects="POS-17", operation="box_position_embedding", origin="pairs exchanged throughout")
class HBeforeW(BoxByHand):
    """Exchanges width and height as well."""

    def ordered(self, boxes: Tensor) -> Tensor:
        return boxes.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


@mutant(
    "box-reversed", rejects="POS-17", operation="box_position_embedding", origin="flip(-1), which is right for points"
)
class Reversed(BoxByHand):
    """Turns the whole box round: (h, w, y, x)."""

    def ordered(self, boxes: Tensor) -> Tensor:
        return boxes.flip(-1)


@mutant(
    "box-sigmoid-inside",
    rejects="POS-18",
    operation="box_position_embedding",
    origin="Deformable DETR, get_proposal_pos_embed",
)
class SigmoidInside(BoxByHand):
    """Takes boxes for logits."""

    def coordinates(self, boxes: Tensor) -> Tensor:
        return super().coordinates(boxes).sigmoid()


@mutant("box-two-pi-missing", rejects="POS-18", operation="box_position_embedding", origin="scale left out")
class ScaleMissing(BoxByHand):
    """Does not multiply by 2 pi."""

    def scaled(self, boxes: Tensor) -> Tensor:
        return boxes


@mutant("box-clamped", rejects="POS-18", operation="box_position_embedding", origin="boxes.clamp(0, 1)")
class Clamped(BoxByHand):
    """Moves boxes into the image."""

    def coordinates(self, boxes: Tensor) -> Tensor:
        return super().coordinates(boxes).clamp(0, 1)


@mutant(
    "box-wrapped",
    rejects="POS-18",
    operation="box_position_embedding",
    origin="argument reduction by the first wavelength",
)
class Wrapped(BoxByHand):
    """Takes coordinates modulo 1, which only the first wave does not see."""

    def coordinates(self, boxes: Tensor) -> Tensor:
        return super().coordinates(boxes).remainder(1)


@mutant("box-from-corners", rejects="POS-18", operation="box_position_embedding", origin="xyxy expected")
class FromCorners(BoxByHand):
    """Takes boxes for corners and converts them."""

    def coordinates(self, boxes: Tensor) -> Tensor:
        wide = super().coordinates(boxes)
        low, high = wide[..., :2], wide[..., 2:]
        return wide if wide.shape[-1] == 2 else torch.cat(((low + high) / 2, high - low), -1)


@mutant(
    "box-waves-in-blocks", rejects="POS-19", operation="box_position_embedding", origin="NeRF's and ViT's embeddings"
)
class BoxBlocks(Blocks, BoxByHand):
    """Has the sines of all wavelengths first, then the cosines."""


@mutant(
    "box-coordinates-alternate", rejects="POS-19", operation="box_position_embedding", origin="einops pattern '(f c)'"
)
class CoordinatesAlternate(BoxByHand):
    """Makes the coordinate the fastest axis of the channels."""

    def result(self, waves: Float[Tensor, "*query coordinate channel"]) -> Tensor:
        return waves.transpose(-1, -2).flatten(-2)


@mutant(
    "box-wavelengths-of-a-box",
    rejects="POS-19",
    operation="box_position_embedding",
    origin="d_model / 2 in place of num_pos_feats",
)
class WavelengthsOfABox(BoxByHand):
    """Divides the exponent by the channels of two coordinates."""

    def exponent(self, wave: Wave) -> Float[Tensor, " channel"]:
        return super().exponent(wave) / 2


@mutant(
    "box-temperature-fixed",
    rejects="POS-19",
    operation="box_position_embedding",
    origin="DINO, gen_sineembed_for_position",
)
class BoxTemperatureFixed(BoxByHand):
    """Takes 10000 whatever the setting says."""

    def phase(self, position: Positions, wave: Wave) -> Waves:
        return super().phase(position, Wave(wave.feats))


@mutant("box-axes-squeezed", rejects="POS-20", operation="box_position_embedding", origin="squeeze() without an axis")
class AxesSqueezed(BoxByHand):
    """Loses leading axes of length one."""

    def result(self, waves: Float[Tensor, "*query coordinate channel"]) -> Tensor:
        return super().result(waves).squeeze()


@mutant(
    "box-three-axes-only", rejects="POS-20", operation="box_position_embedding", origin="DINO's pos_tensor[:, :, 0]"
)
class ThreeAxesOnly(BoxByHand):
    """Reads the coordinates by three indices."""

    def coordinates(self, boxes: Tensor) -> Tensor:
        return torch.stack([super(ThreeAxesOnly, self).coordinates(boxes)[:, :, i] for i in range(boxes.shape[2])], -1)


@mutant(
    "box-scaled-in-half",
    rejects="POS-21",
    operation="box_position_embedding",
    origin="transformers and detrex: x * scale / dim_t",
)
class ScaledInHalf(BoxByHand):
    """Multiplies by 2 pi in the dtype of the boxes."""

    def coordinates(self, boxes: Tensor) -> Tensor:
        return boxes

    def ordered(self, boxes: Tensor) -> Tensor:
        return super().ordered(boxes).to(self.wide(boxes.dtype))


@mutant("box-in-half", rejects="POS-21", operation="box_position_embedding", origin="no conversion at all")
class InHalf(BoxByHand):
    """Computes in the dtype of the boxes throughout."""

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        return dtype


@mutant("box-frequencies-in-half", rejects="POS-21", operation="box_position_embedding", origin="dim_t.to(pos.dtype)")
class FrequenciesInHalf(BoxByHand):
    """Rounds the exponents to bfloat16."""

    def exponent(self, wave: Wave) -> Float[Tensor, " channel"]:
        return super().exponent(wave).bfloat16()


@mutant(
    "box-embedding-size-detached",
    rejects="POS-22",
    operation="box_position_embedding",
    origin="only the centre taken for a position",
)
class SizeDetached(BoxByHand):
    """Gives width and height no gradient."""

    def ordered(self, boxes: Tensor) -> Tensor:
        return torch.cat((super().ordered(boxes)[..., :2], boxes[..., 2:].detach()), -1)


@mutant(
    "box-without-gradient",
    rejects="POS-22",
    operation="box_position_embedding",
    origin="@torch.no_grad() around the embedding",
)
class WithoutGradient(BoxByHand):
    """Treats boxes as constants."""

    def coordinates(self, boxes: Tensor) -> Tensor:
        return super().coordinates(boxes).detach() + 0 * boxes


@mutant(
    "box-gradient-of-the-image",
    rejects="POS-22",
    operation="box_position_embedding",
    origin="clamp of the gradient outside [0, 1]",
)
class GradientOfTheImage(BoxByHand):
    """Passes no gradient to coordinates outside the image."""

    def coordinates(self, boxes: Tensor) -> Tensor:
        wide = super().coordinates(boxes)
        return torch.where((wide >= 0) & (wide <= 1), wide, wide.detach())


@mutant(
    "box-any-coordinates", rejects="POS-23", operation="box_position_embedding", origin="detrex, get_sine_pos_embed"
)
class AnyCoordinates(BoxByHand):
    """Embeds any number of coordinates."""

    def check_boxes(self, boxes: Tensor) -> None:
        pass


@mutant(
    "box-odd-channels-accepted", rejects="POS-16", operation="box_position_embedding", origin="slices 0::2 and 1::2"
)
class BoxOddChannelsAccepted(BoxByHand):
    """Leaves the last sine of each coordinate without its cosine."""

    def check_channels(self, feats: int) -> None:
        pass
