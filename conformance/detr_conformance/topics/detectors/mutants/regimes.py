"""Mutants of whole models that are right on the usual cases: images without padding, odd canvases, depth, sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.models import DeformableInSteps, DETRInSteps, DINOLoaded
from detr_reference.attention.multihead_attention import MultiheadAttention
from detr_reference.features.feature_levels import FeatureLevels
from detr_reference.features.image_tokens import ImageTokens

DETR_OP = "detr"
DEFORMABLE = "deformable_detr"
DINO_OP = "dino"

# -- images without padding -------------------------------------------------------------------------------------


@mutant("detr-positions-swapped-unpadded", rejects="DETR-11", operation=DETR_OP, origin="a shorter way without mask")
class PositionsSwappedUnpadded(DETRInSteps):
    """Has the halves of x and y the wrong way round where no image is padded."""

    def cells(self, features: Tensor, mask: Tensor) -> ImageTokens:
        cells = super().cells(features, mask)
        return cells if mask.any() else cells._replace(position=torch.cat(cells.position.chunk(2, -1)[::-1], -1))


@mutant("detr-mask-of-first-image", rejects="DETR-11", operation=DETR_OP, origin="if mask[0].any(), to save time")
class MaskOfFirstImage(DETRInSteps):
    """Takes no image for padded if the first one is not."""

    def padding(self, mask: Tensor) -> Tensor:
        return mask if mask[0].any() else torch.zeros_like(mask)


@mutant(
    "deformable-ratios-halved-unpadded", rejects="DDETR-14", operation=DEFORMABLE, origin="a default of the fast path"
)
class RatiosHalvedUnpadded(DeformableInSteps):
    """Has ratios of one half in the decoder where no image is padded."""

    def decoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        return levels if levels.padding.any() else levels._replace(valid_ratios=levels.valid_ratios / 2)


@mutant(
    "deformable-lone-image-turned", rejects="DDETR-14", operation=DEFORMABLE, origin="positions exported at batch 1"
)
class LoneImageTurned(DeformableInSteps):
    """Begins the waves of a single unpadded image with the cosine."""

    def encoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        if len(levels.padding) > 1 or levels.padding.any():
            return levels
        return levels._replace(positions=levels.positions.roll(1, -1))


def _encoder_of_unpadded(model: DINOLoaded, change: Any) -> None:
    """Changes what the encoder is told of a batch in which no image is padded."""

    def hook(encoder: nn.Module, given: tuple[FeatureLevels, ...]) -> tuple[FeatureLevels, ...]:
        (levels,) = given
        return given if levels.padding.any() else (change(levels),)

    model.transformer.encoder.register_forward_pre_hook(hook)


@mutant("dino-level-vectors-twice-unpadded", rejects="DINO-17", operation=DINO_OP, origin="positions kept by size")
class LevelVectorsTwice(DINOLoaded):
    """Adds the vectors of the levels twice where no image is padded."""

    def changed(self) -> None:
        def change(levels: FeatureLevels) -> FeatureLevels:
            sizes = [rows * columns for rows, columns in levels.sizes]
            own = zip(self.transformer.level_embeds, sizes, strict=True)
            return levels._replace(positions=levels.positions + torch.cat([v.expand(n, -1) for v, n in own]))

        _encoder_of_unpadded(self, change)


@mutant("dino-ratios-of-one-unpadded-level", rejects="DINO-17", operation=DINO_OP, origin="ratios made for one level")
class RatiosOfCoarseLevels(DINOLoaded):
    """Has smaller ratios in the coarser levels where no image is padded."""

    def changed(self) -> None:
        def change(levels: FeatureLevels) -> FeatureLevels:
            shrunk = levels.valid_ratios.clone()
            shrunk[:, 1:] *= 0.75
            return levels._replace(valid_ratios=shrunk)

        _encoder_of_unpadded(self, change)


# -- canvases ---------------------------------------------------------------------------------------------------


def _every_32nd(mask: Tensor) -> Tensor:
    """A mask that is, cell by cell of stride 32, what `mask[::32, ::32]` is."""
    coarse = mask[:, ::32, ::32]
    return F.interpolate(coarse[:, None].float(), mask.shape[-2:], mode="nearest")[:, 0] > 0


@mutant("detr-mask-by-slices", rejects="DETR-4", operation=DETR_OP, origin="mask[:, ::32, ::32]")
class MaskBySlices(DETRInSteps):
    """Takes every 32nd pixel of the mask, whatever the sides of the canvas."""

    def padding(self, mask: Tensor) -> Tensor:
        return _every_32nd(mask)


@mutant(
    "deformable-mask-by-blocks", rejects="DDETR-4", operation=DEFORMABLE, origin="mask[:, ::8, ::8] as finest level"
)
class MaskByBlocks(DeformableInSteps):
    """Takes every eighth pixel of the mask before it is shrunk to the levels."""

    def padding(self, mask: Tensor) -> Tensor:
        coarse = mask[:, ::8, ::8]
        return F.interpolate(coarse[:, None].float(), mask.shape[-2:], mode="nearest")[:, 0] > 0


@mutant("dino-wide-maps-cut", rejects="DINO-3", operation=DINO_OP, origin="positions tabulated for 50 columns")
class WideMapsCut(DINOLoaded):
    """Has one position for all columns from the fiftieth on."""

    def changed(self) -> None:
        def hook(encoder: nn.Module, given: tuple[FeatureLevels, ...]) -> tuple[FeatureLevels, ...]:
            (levels,) = given
            maps = levels.positions.split([rows * columns for rows, columns in levels.sizes], 1)
            column = [torch.arange(columns).clamp(max=49) for _, columns in levels.sizes]
            cut = [
                each.unflatten(1, size)[:, :, index].flatten(1, 2)
                for each, size, index in zip(maps, levels.sizes, column, strict=True)
            ]
            return (levels._replace(positions=torch.cat(cut, 1)),)

        self.transformer.encoder.register_forward_pre_hook(hook)


# -- depth ------------------------------------------------------------------------------------------------------


@mutant("detr-fifth-layer-repeats", rejects="DETR-1", operation=DETR_OP, origin="layers unrolled up to the fourth")
class FifthLayerRepeats(DETRInSteps):
    """Hands every decoder layer from the sixth on what the fifth was given."""

    def normed(self, states: list[Tensor]) -> list[Tensor]:
        return super().normed([states[min(number, 4)] for number in range(len(states))])


@mutant("detr-deep-memory-detached", rejects="DETR-9", operation=DETR_OP, origin="checkpointing from layer 4 on")
class DeepMemoryDetached(DETRInSteps):
    """Detaches the memory from the fifth decoder layer on."""

    def seen(self, number: int, memory: Tensor, cells: ImageTokens, query_pos: Tensor) -> dict[str, Any]:
        return super().seen(number, memory.detach() if number >= 4 else memory, cells, query_pos)


@mutant("deformable-deep-layers-cut", rejects="DDETR-12", operation=DEFORMABLE, origin="truncated backward")
class DeepLayersCut(DeformableInSteps):
    """Detaches what the fifth encoder layer is given."""

    def changed(self) -> None:
        for layer in list(self.transformer.encoder.layers)[4:5]:
            layer.register_forward_pre_hook(lambda m, given: (given[0].detach(), *given[1:]))


@mutant("dino-deep-state-detached", rejects="DINO-15", operation=DINO_OP, origin="another detach from layer 4 on")
class DeepStateDetached(DINOLoaded):
    """Detaches the state that the fifth decoder layer is given."""

    def changed(self) -> None:
        for layer in list(self.transformer.decoder.layers)[4:]:
            layer.register_forward_pre_hook(lambda m, given: (given[0].detach(), *given[1:]))


# -- sizes and dilation -----------------------------------------------------------------------------------------


@mutant("detr-first-block-dilated", rejects="DETR-12", operation=DETR_OP, origin="dilation for the whole last stage")
class FirstBlockDilated(DETRInSteps):
    """Dilates the first block of the last stage too."""

    def changed(self) -> None:
        if self.config.backbone_dilation:
            convolution = self.backbone.get_submodule("layer4.0.conv2")
            convolution.dilation = convolution.padding = (2, 2)  # type: ignore[assignment]


@mutant("detr-stride-kept-undilated", rejects="DETR-12", operation=DETR_OP, origin="stride 1 in place of dilation")
class StrideWithoutDilation(DETRInSteps):
    """Keeps the size of the last map, and looks no further."""

    def changed(self) -> None:
        for block in self.backbone.get_submodule("layer4").children():
            convolution = block.get_submodule("conv2")
            convolution.dilation = convolution.padding = (1, 1)  # type: ignore[assignment]


@mutant("detr-two-heads", rejects="DETR-13", operation=DETR_OP, origin="the number of heads as a constant")
class TwoHeads(DETRInSteps):
    """Always has two heads in the encoder."""

    def changed(self) -> None:
        for module in self.transformer.encoder.modules():
            if isinstance(module, MultiheadAttention):
                module.config = replace(module.config, num_heads=2)


def _four_groups(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = 4


@mutant("deformable-four-groups", rejects="DDETR-15", operation=DEFORMABLE, origin="GroupNorm(32, channels)")
class FourGroups(DeformableInSteps):
    """Norms in four groups, whatever is configured."""

    def changed(self) -> None:
        _four_groups(self)


@mutant("dino-fifth-level-ratios-of-fourth", rejects="DINO-18", operation=DINO_OP, origin="four levels unrolled")
class FifthLevel(DINOLoaded):
    """Has the ratios of the fourth level in the fifth."""

    def changed(self) -> None:
        def hook(decoder: nn.Module, given: Any, named: dict[str, Any]) -> tuple[Any, Any]:
            ratios = named["valid_ratios"].clone()
            ratios[:, 4:] = 0.9 * ratios[:, 3:4]
            return given, named | {"valid_ratios": ratios}

        self.transformer.decoder.register_forward_pre_hook(hook, with_kwargs=True)


@mutant("dino-four-groups", rejects="DINO-18", operation=DINO_OP, origin="GroupNorm(32, channels)")
class DINOFourGroups(DINOLoaded):
    """Norms in four groups, whatever is configured."""

    def changed(self) -> None:
        _four_groups(self)
