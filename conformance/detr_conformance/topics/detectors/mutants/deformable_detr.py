"""Mutants of the whole Deformable DETR (chapter 18)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.models import DeformableInSteps
from detr_reference.detectors.deformable_detr import InitialQueries
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
    "deformable-content-first", rejects="DDETR-5", operation="deformable_detr", origin="tgt, pos = query_embed.chunk(2)"
)
class ContentFirst(DeformableInSteps):
    """Takes the first half of the embedding for the content."""

    def _learned_queries(self, batch: int) -> InitialQueries:
        content, position = self.query_embedding.weight.expand(batch, -1, -1).chunk(2, dim=-1)
        return InitialQueries(content, position, self.transformer.reference_points(position).sigmoid())


@mutant(
    "deformable-references-of-content",
    rejects="DDETR-5",
    operation="deformable_detr",
    origin="Linear(dim, 2) on the query",
)
class ReferencesOfContent(DeformableInSteps):
    """Predicts reference points from the content half."""

    def _learned_queries(self, batch: int) -> InitialQueries:
        queries = super()._learned_queries(batch)
        return queries._replace(reference=self.transformer.reference_points(queries.content).sigmoid())


@mutant(
    "deformable-references-not-sigmoided",
    rejects="DDETR-6",
    operation="deformable_detr",
    origin="sigmoid left to the decoder",
)
class ReferencesClamped(DeformableInSteps):
    """Clamps reference points to the image in place of a sigmoid."""

    def _learned_queries(self, batch: int) -> InitialQueries:
        queries = super()._learned_queries(batch)
        raw = self.transformer.reference_points(queries.position)
        return queries._replace(reference=(raw / 4 + 0.5).clamp(0, 1))


@mutant(
    "deformable-references-unscaled",
    rejects="DDETR-6",
    operation="deformable_detr",
    origin="valid ratios called removable",
)
class ReferencesUnscaled(DeformableInSteps):
    """Looks at the references' places on the padded map."""

    def decoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        return levels._replace(valid_ratios=torch.ones_like(levels.valid_ratios))


@mutant(
    "deformable-refines-without-being-asked",
    rejects="DDETR-7",
    operation="deformable_detr",
    origin="references replaced in any case",
)
class RefinesAnyway(DeformableInSteps):
    """Lets the box of a layer be the next reference also in the plain form."""

    def changed(self) -> None:
        self.transformer.decoder.box_refinement = True


@mutant(
    "deformable-heads-of-the-last-layer-only",
    rejects="DDETR-7",
    operation="deformable_detr",
    origin="auxiliary losses off",
)
class AuxiliaryDetached(DeformableInSteps):
    """Detaches the boxes of all layers but the last."""

    def returned(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        boxes = found["pred_boxes"]
        return found | {"pred_boxes": torch.cat((boxes[:-1].detach(), boxes[-1:]))}


@mutant("deformable-references-undetached", rejects="DDETR-8", operation="deformable_detr", origin="detach forgotten")
class ReferencesUndetached(DeformableInSteps):
    """Lets the gradient of a box run through all references before it."""

    def changed(self) -> None:
        transformer: Any = self.transformer
        transformer.decoder = _Undetached(transformer.decoder)


class _Undetached(nn.Module):
    """A decoder whose `detach` is switched off."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.layers = decoder.layers
        self.inner = [decoder]  # in a list, so that its parameters are not counted twice

    def forward(self, *given: Any) -> Any:
        tensors: Any = Tensor
        kept = tensors.detach
        tensors.detach = lambda tensor: tensor
        try:
            return self.inner[0](*given)
        finally:
            tensors.detach = kept


@mutant("deformable-one-box-head", rejects="DDETR-8", operation="deformable_detr", origin="transformers, tied heads")
class OneBoxHead(DeformableInSteps):
    """Uses the first layer's box head in every layer of the refined form."""

    def _per_layer(self, heads: nn.ModuleList) -> list[nn.Module]:
        own = super()._per_layer(heads)
        return [own[0]] * len(own) if heads is self.bbox_embed else own


@mutant("deformable-selects-by-surest-class", rejects="DDETR-9", operation="deformable_detr", origin="DINO's selection")
class SelectsBySurestClass(DeformableInSteps):
    """Selects by the maximum over the classes."""

    def _selected_queries(self, first_stage: Mapping[str, Tensor]) -> InitialQueries:
        surest = first_stage["logits"].amax(-1, keepdim=True).expand_as(first_stage["logits"])
        return super()._selected_queries({**first_stage, "logits": surest})


@mutant(
    "deformable-selects-in-order-of-cells", rejects="DDETR-9", operation="deformable_detr", origin="topk(sorted=False)"
)
class SelectsInOrderOfCells(DeformableInSteps):
    """Keeps the selected cells in the order of the map."""

    def _selected_queries(self, first_stage: Mapping[str, Tensor]) -> InitialQueries:
        best = first_stage["logits"][..., 0].topk(self.config.num_queries, dim=1).indices.sort(1).values
        falling = torch.full_like(first_stage["logits"], -1e9)
        ranks = torch.arange(best.shape[1], 0, -1, dtype=falling.dtype).expand(len(best), -1)
        falling[..., 0] = falling[..., 0].scatter(1, best, ranks)
        return super()._selected_queries({**first_stage, "logits": falling})


@mutant("deformable-proposals-undetached", rejects="DDETR-10", operation="deformable_detr", origin="detach forgotten")
class ProposalsUndetached(DeformableInSteps):
    """Hands the selected proposals to the decoder undetached."""

    def _selected_queries(self, first_stage: Mapping[str, Tensor]) -> InitialQueries:
        queries = super()._selected_queries(first_stage)
        best = first_stage["logits"][..., 0].topk(self.config.num_queries, dim=1).indices
        chosen = first_stage["proposals"].gather(1, best[..., None].expand(-1, -1, 4))
        return queries._replace(reference=chosen.sigmoid())


@mutant(
    "deformable-content-of-selected-memory",
    rejects="DDETR-10",
    operation="deformable_detr",
    origin="pure query selection",
)
class ContentOfMemory(DeformableInSteps):
    """Hands on what the selected cells hold as content."""

    def _selected_queries(self, first_stage: Mapping[str, Tensor]) -> InitialQueries:
        queries = super()._selected_queries(first_stage)
        best = first_stage["logits"][..., 0].topk(self.config.num_queries, dim=1).indices
        chosen = first_stage["memory"].gather(1, best[..., None].expand(-1, -1, self.config.embed_dim))
        return queries._replace(content=chosen.detach())


@mutant("deformable-proposal-halves-swapped", rejects="DDETR-10", operation="deformable_detr", origin="content first")
class ProposalHalvesSwapped(DeformableInSteps):
    """Takes the first half of the embedded proposal for the content."""

    def _selected_queries(self, first_stage: Mapping[str, Tensor]) -> InitialQueries:
        queries = super()._selected_queries(first_stage)
        return queries._replace(content=queries.position, position=queries.content)


@mutant(
    "deformable-first-stage-detached",
    rejects="DDETR-11",
    operation="deformable_detr",
    origin="enc_outputs returned detached",
)
class FirstStageDetached(DeformableInSteps):
    """Returns detached proposals, so that the first stage learns from classes alone."""

    def returned(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        return found | {name: tensor.detach() for name, tensor in found.items() if name == "enc_boxes"}


@mutant(
    "deformable-first-stage-heads-of-decoder",
    rejects="DDETR-11",
    operation="deformable_detr",
    origin="heads shared with the decoder",
)
class FirstStageHeadsOfDecoder(DeformableInSteps):
    """Lets the last decoder layer's class head judge the cells."""

    def _first_stage(self, memory: Tensor, levels: FeatureLevels) -> dict[str, Tensor]:
        found = super()._first_stage(memory, levels)
        return found | {"logits": self.class_embed[-2](found["memory"])}


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
