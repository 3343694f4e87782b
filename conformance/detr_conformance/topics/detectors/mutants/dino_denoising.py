"""Mutants of the whole DINO: its denoising queries (DINO-9 to DINO-13)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.models import DINOLoaded, returning
from detr_reference.losses.batch_targets import BatchTargets


@mutant("dino-matching-sees-denoising", rejects="DINO-9", operation="dino", origin="attention mask not handed on")
class MatchingSeesDenoising(DINOLoaded):
    """Lets all queries see each other."""

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        found = super()._denoising_queries(targets)
        return found | {"attn_mask": torch.zeros_like(found["attn_mask"])}


@mutant(
    "dino-denoising-behind-matching",
    rejects="DINO-9",
    operation="dino",
    origin="cat((query, denoising)) with the mask as it was",
)
class DenoisingBehind(DINOLoaded):
    """Has the denoising queries behind the matching ones, and returns them as if they were in front."""

    def changed(self) -> None:
        returning(self, lambda m, found: _turned(m, found))


def _turned(model: DINOLoaded, found: dict[str, Tensor]) -> dict[str, Tensor]:
    if "dn_logits" not in found or not found["dn_logits"].shape[2]:
        return found
    turned = dict(found)
    for name in ("logits", "boxes"):
        joined = torch.cat((found[f"pred_{name}"], found[f"dn_{name}"]), 2)
        size = found[f"dn_{name}"].shape[2]
        turned[f"dn_{name}"], turned[f"pred_{name}"] = joined[:, :, :size], joined[:, :, size:]
    return turned


@mutant("dino-one-denoising-group", rejects="DINO-10", operation="dino", origin="the number of groups never used")
class OneGroup(DINOLoaded):
    """Makes one group, however few boxes there are."""

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        found = super()._denoising_queries(targets)
        size, queries = 2 * int(targets.counts.max()), self.config.num_queries
        kept = [*range(size), *range(len(found["attn_mask"]) - queries, len(found["attn_mask"]))]
        mask = found["attn_mask"][kept][:, kept]
        return {"content": found["content"][:, :size], "references": found["references"][:, :size], "attn_mask": mask}


@mutant("dino-denoising-dropped", rejects="DINO-10", operation="dino", origin="denoising outputs not returned")
class DenoisingDropped(DINOLoaded):
    """Does not return what the denoising queries predict."""

    def changed(self) -> None:
        returning(self, lambda m, found: {name: t for name, t in found.items() if name[:3] != "dn_"})


@mutant(
    "dino-denoising-boxes-of-other-image",
    rejects="DINO-11",
    operation="dino",
    origin="boxes gathered without their image",
)
class BoxesOfOtherImage(DINOLoaded):
    """Gives every image the next one's noised boxes."""

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        found = super()._denoising_queries(targets)
        return found | {"references": found["references"].roll(1, 0)}


@mutant("dino-denoising-references-sigmoided", rejects="DINO-11", operation="dino", origin="logit left out")
class ReferencesSigmoided(DINOLoaded):
    """Takes the logits of the noised boxes for boxes, once more."""

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        found = super()._denoising_queries(targets)
        return found | {"references": found["references"].sigmoid()}


@mutant("dino-denoising-in-evaluation", rejects="DINO-12", operation="dino", origin="targets given, so they are used")
class DenoisingInEvaluation(DINOLoaded):
    """Starts the queries near the objects of any image whose targets it is given."""

    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        target_labels: Tensor | None = None,
        target_boxes: Tensor | None = None,
        target_counts: Tensor | None = None,
    ) -> dict[str, Tensor]:
        found = super().forward(images, mask, target_labels, target_boxes, target_counts)
        if self.training or target_boxes is None or not len(target_boxes):
            return found
        return found | {"pred_boxes": (found["pred_boxes"] + target_boxes.mean(0)) / 2}


@mutant(
    "dino-label-embedding-unused",
    rejects="DINO-13",
    operation="dino",
    origin="no term of zero for batches without boxes",
)
class LabelEmbeddingUnused(DINOLoaded):
    """Leaves the label embedding out of the graph where there is no box."""

    def changed(self) -> None:
        def hook(decoder: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
            content = dict(self.named_parameters())["transformer.tgt_embed.weight"]
            empty = given[0].shape[1] == self.config.num_queries
            return (content.expand(len(given[0]), -1, -1) if empty else given[0], *given[1:]), named

        self.transformer.decoder.register_forward_pre_hook(hook, with_kwargs=True)


@mutant("dino-no-boxes-raise", rejects="DINO-13", operation="dino", origin="max() of an empty list")
class NoBoxesRaise(DINOLoaded):
    """Fails on a batch without boxes."""

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        if not len(targets.labels):
            raise RuntimeError("max(): Expected reduction dim to be specified for input.numel() == 0")
        return super()._denoising_queries(targets)
