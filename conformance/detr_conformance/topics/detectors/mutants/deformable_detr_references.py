"""Mutants of the whole Deformable DETR: queries, reference points, refinement (DDETR-5 to DDETR-8)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.models import DeformableInSteps
from detr_reference.detectors.deformable_detr import InitialQueries
from detr_reference.features.feature_levels import FeatureLevels


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
