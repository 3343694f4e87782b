"""Mutants of DINO that take no notice of a switch, or a wrong one (DINO-19 to DINO-21)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.models import DINOLoaded
from detr_reference.denoising.denoising_mask import denoising_attention_mask
from detr_reference.features.feature_levels import FeatureLevels
from detr_reference.losses.batch_targets import BatchTargets

DINO_OP = "dino"


@mutant("dino-pure-content-undetached", rejects="DINO-19", operation=DINO_OP, origin="the detach of boxes alone")
class PureContentUndetached(DINOLoaded):
    """Lets the decoder's losses train the first stage through the content of pure selection."""

    def _selected_cells(self, memory: Tensor, levels: FeatureLevels) -> dict[str, Tensor]:
        found = super()._selected_cells(memory, levels)
        if self.config.query_selection != "pure":
            return found
        kept = found["memory"]

        def hook(decoder: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            handle.remove()
            return (given[0] + kept - kept.detach(), *given[1:])

        handle = self.transformer.decoder.register_forward_pre_hook(hook)
        return found


@mutant("dino-static-references-detached", rejects="DINO-19", operation=DINO_OP, origin="references.detach() for all")
class StaticReferencesDetached(DINOLoaded):
    """Never trains the learned boxes."""

    def changed(self) -> None:
        def hook(decoder: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (*given[:2], given[2].detach(), *given[3:])

        self.transformer.decoder.register_forward_pre_hook(hook)


@mutant(
    "dino-static-boxes-in-order", rejects="DINO-19", operation=DINO_OP, origin="anchors on a grid, as Anchor DETR has"
)
class StaticContentOfLast(DINOLoaded):
    """Gives every query of static selection the content of the first."""

    def changed(self) -> None:
        def hook(decoder: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (given[0][:, :1].expand_as(given[0]), *given[1:])

        if self.config.query_selection == "static":
            self.transformer.decoder.register_forward_pre_hook(hook)


@mutant("dino-always-looks-forward-twice", rejects="DINO-20", operation=DINO_OP, origin="the setting is ignored")
class AlwaysTwice(DINOLoaded):
    """Looks forward twice whatever the setting says."""

    def changed(self) -> None:
        object.__setattr__(self.transformer.decoder.config, "look_forward_twice", True)


@mutant("dino-groups-see-next-but-one", rejects="DINO-21", operation=DINO_OP, origin="a mask of neighbours alone")
class GroupsSeeNextButOne(DINOLoaded):
    """Forbids a denoising group the groups beside it, and no others."""

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        found = super()._denoising_queries(targets)
        most = max(1, int(targets.counts.max()))
        size = 2 * most if self.config.denoising == "contrastive" else most
        denoising = found["content"].shape[1]
        group = torch.arange(denoising) // size
        mask = denoising_attention_mask(denoising // size, size, self.config.num_queries).clone()
        mask[:denoising, :denoising] = (group[:, None] - group).abs() == 1
        return found | {"attn_mask": mask}


@mutant("dino-plain-is-contrastive", rejects="DINO-21", operation=DINO_OP, origin="one kind of denoising implemented")
class PlainIsContrastive(DINOLoaded):
    """Has negatives in plain denoising too."""

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        config = self.config
        if config.denoising == "plain":
            self.config = replace(config, denoising="contrastive")
        try:
            return super()._denoising_queries(targets)
        finally:
            self.config = config


@mutant("dino-content-of-next-label", rejects="DINO-21", operation=DINO_OP, origin="labels from one on")
class ContentOfNextLabel(DINOLoaded):
    """Takes the row of the next class for a denoising query."""

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        shifted = targets._replace(labels=(targets.labels + 1) % self.config.num_classes)
        found: Mapping[str, Tensor] = super()._denoising_queries(shifted)
        return dict(found)
