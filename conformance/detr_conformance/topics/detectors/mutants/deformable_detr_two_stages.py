"""Mutants of the whole Deformable DETR: selection and the first stage (DDETR-9 to DDETR-11)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.models import DeformableInSteps
from detr_reference.detectors.deformable_detr import InitialQueries
from detr_reference.features.feature_levels import FeatureLevels


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
