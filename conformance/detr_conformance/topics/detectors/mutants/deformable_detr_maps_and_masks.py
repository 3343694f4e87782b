"""Mutants of the whole Deformable DETR: layers, maps, levels, masks, what they learn (DDETR-1 to 4, 12, 13)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.models import DeformableInSteps
from detr_reference.features.feature_levels import FeatureLevels


@mutant(
    "deformable-last-layer-repeated",
    rejects="DDETR-1",
    operation="deformable_detr",
    origin="auxiliary outputs of the last layer",
)
class LastLayerRepeated(DeformableInSteps):
    """Returns the last layer's predictions for every layer."""

    def returned(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        last = {name: tensor[-1:].expand_as(tensor).clone() for name, tensor in found.items() if name[0] == "p"}
        return found | last


@mutant(
    "deformable-one-encoder-layer",
    rejects="DDETR-1",
    operation="deformable_detr",
    origin="[layer] * n in place of copies",
)
class OneEncoderLayer(DeformableInSteps):
    """Runs the first encoder layer in place of all others."""

    def encoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        first, *others = self.transformer.encoder.layers
        for layer in others:
            layer.forward = first.forward
        return levels


@mutant(
    "deformable-extra-level-of-projected-map",
    rejects="DDETR-2",
    operation="deformable_detr",
    origin="FPN, RetinaNet's P6",
)
class ExtraOfProjected(DeformableInSteps):
    """Pools the last projected map for the levels beyond the backbone's."""

    def levels(self, maps: Any, mask: Tensor) -> FeatureLevels:
        given = len(self.backbone.channels)
        kept = list(maps[:given])
        while len(kept) < len(maps):
            kept.append(nn.functional.interpolate(kept[-1], maps[len(kept)].shape[-2:]))
        return super().levels(kept, mask)


@mutant(
    "deformable-coarsest-level-first", rejects="DDETR-2", operation="deformable_detr", origin="FPN's top-down order"
)
class CoarsestFirst(DeformableInSteps):
    """Turns the order of the maps round."""

    def levels(self, maps: Any, mask: Tensor) -> FeatureLevels:
        return super().levels(maps[::-1], mask)


@mutant(
    "deformable-neck-without-norm", rejects="DDETR-2", operation="deformable_detr", origin="DETR's plain input_proj"
)
class NeckWithoutNorm(DeformableInSteps):
    """Skips the group norms of the neck."""

    def changed(self) -> None:
        for module in self.neck.modules():
            if isinstance(module, nn.GroupNorm):
                module.register_forward_hook(lambda m, given, output: given[0])


@mutant("deformable-no-level-vectors", rejects="DDETR-3", operation="deformable_detr", origin="level_embed left out")
class NoLevelVectors(DeformableInSteps):
    """Adds no vectors of the levels."""

    def level_vectors(self) -> Tensor:
        return self.transformer.level_embeds * 0


@mutant(
    "deformable-level-vectors-reversed",
    rejects="DDETR-3",
    operation="deformable_detr",
    origin="levels numbered from the coarsest",
)
class LevelVectorsReversed(DeformableInSteps):
    """Numbers the levels from the coarsest."""

    def level_vectors(self) -> Tensor:
        return self.transformer.level_embeds.flip(0)


@mutant("deformable-offset-missing", rejects="DDETR-3", operation="deformable_detr", origin="DETR's sine embedding")
class OffsetMissing(DeformableInSteps):
    """Refers positions to the far borders of the cells."""

    def offset(self) -> float:
        return 0.0


@mutant("deformable-temperature-of-dino", rejects="DDETR-3", operation="deformable_detr", origin="DINO's configuration")
class TemperatureOfDINO(DeformableInSteps):
    """Has a temperature of 20."""

    def temperature(self) -> float:
        return 20.0


@mutant("deformable-positions-in-values", rejects="DDETR-3", operation="deformable_detr", origin="src = src + pos")
class PositionsInValues(DeformableInSteps):
    """Adds the positions to the features before the encoder as well."""

    def encoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        return levels._replace(features=levels.features + levels.positions)


@mutant("deformable-mask-inverted", rejects="DDETR-4", operation="deformable_detr", origin="transformers PR 20958")
class MaskInverted(DeformableInSteps):
    """Masks the image instead of the padding, in encoder and decoder; ratios and positions are right."""

    def encoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        return levels._replace(padding=~levels.padding)

    def decoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        return levels._replace(padding=~levels.padding)


@mutant(
    "deformable-encoder-unmasked", rejects="DDETR-4", operation="deformable_detr", origin="an evaluation mask of zeros"
)
class EncoderUnmasked(DeformableInSteps):
    """Lets the encoder read padding."""

    def encoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        return levels._replace(padding=torch.zeros_like(levels.padding))


@mutant(
    "deformable-decoder-unmasked",
    rejects="DDETR-4",
    operation="deformable_detr",
    origin="mask not handed to cross-attention",
)
class DecoderUnmasked(DeformableInSteps):
    """Lets the decoder read padding."""

    def decoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        return levels._replace(padding=torch.zeros_like(levels.padding))


@mutant(
    "deformable-one-ratio-for-all-levels", rejects="DDETR-4", operation="deformable_detr", origin="ratios of the image"
)
class OneRatio(DeformableInSteps):
    """Gives all levels the ratios of the finest."""

    def encoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        return levels._replace(valid_ratios=levels.valid_ratios[:, :1].expand_as(levels.valid_ratios))

    def decoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        return self.encoder_levels(levels)


@mutant("deformable-ratios-swapped", rejects="DDETR-4", operation="deformable_detr", origin="(h, w) for (w, h)")
class RatiosSwapped(DeformableInSteps):
    """Gives the decoder ratios with height first."""

    def decoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        return levels._replace(valid_ratios=levels.valid_ratios.flip(-1))


@mutant(
    "deformable-memory-detached",
    rejects="DDETR-12",
    operation="deformable_detr",
    origin="no_grad around a frozen encoder",
)
class MemoryDetached(DeformableInSteps):
    """Detaches the memory from the encoder."""

    def changed(self) -> None:
        self.transformer.encoder.register_forward_hook(lambda m, given, memory: memory.detach())


@mutant(
    "deformable-query-embedding-gradient-halved",
    rejects="DDETR-12",
    operation="deformable_detr",
    origin="gradient hooks left in",
)
class GradientHalved(DeformableInSteps):
    """Halves the gradients of the level vectors."""

    def level_vectors(self) -> Tensor:
        vectors = super().level_vectors()
        return vectors / 2 + (vectors / 2).detach()


@mutant(
    "deformable-scaled-between-stages",
    rejects="DDETR-13",
    operation="deformable_detr",
    origin="quantisation scales moved across a layer",
)
class ScaledBetweenStages(DeformableInSteps):
    """Doubles the backbone's features and halves them again before the neck."""

    def changed(self) -> None:
        self.backbone.register_forward_hook(lambda m, given, maps: tuple(each * 2 for each in maps))
        self.neck.register_forward_pre_hook(lambda m, given: (tuple(each / 2 for each in given[0]),))
