"""Mutants of the whole DINO: the noise of its denoising queries, and its groups (DINO-23 to DINO-25)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.models import DINOLoaded
from detr_reference.losses.batch_targets import BatchTargets


@mutant(
    "dino-negatives-as-near",
    rejects="DINO-23",
    operation="dino",
    origin="the + 1 of negatives left out where the model makes its queries itself",
)
class NegativesAsNear(DINOLoaded):
    """Starts negatives as near to their boxes as positives of the next group."""

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        found = super()._denoising_queries(targets)
        size = int(targets.counts.max())
        if not size:
            return found
        references = found["references"].unflatten(1, (-1, 2, size)).clone()
        references[:, :, 1] = references[:, :, 0].roll(1, 1)
        return found | {"references": references.flatten(1, 3)}


@mutant(
    "dino-first-group-for-all",
    rejects="DINO-23",
    operation="dino",
    origin="one group made and repeated",
)
class FirstGroupForAll(DINOLoaded):
    """Gives every group the queries of the first."""

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        found = super()._denoising_queries(targets)
        size = 2 * int(targets.counts.max())
        place = torch.arange(found["content"].shape[1]) % max(size, 1)
        return found | {name: found[name][:, place] for name in ("content", "references")}


@mutant(
    "dino-labels-without-noise",
    rejects="DINO-23",
    operation="dino",
    origin="label_noise_ratio of the configuration not handed on",
)
class LabelsWithoutNoise(DINOLoaded):
    """Embeds the true labels."""

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        configured = self.config
        self.config = replace(configured, label_noise_ratio=0.0)
        try:
            return super()._denoising_queries(targets)
        finally:
            self.config = configured


@mutant(
    "dino-noise-kept-by-size",
    rejects="DINO-24",
    operation="dino",
    origin="a table of noise for each number of queries, so that a step need not draw",
)
class NoiseKeptBySize(DINOLoaded):
    """Draws from the state that the generator had in the first step with as many boxes."""

    def changed(self) -> None:
        self.kept: dict[tuple[int, ...], Tensor] = {}

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        size = tuple(targets.counts.tolist())
        now = torch.get_rng_state()
        torch.set_rng_state(self.kept.setdefault(size, now))
        found = super()._denoising_queries(targets)
        torch.set_rng_state(now)
        torch.rand(())
        return found


@mutant(
    "dino-noise-of-one-generator",
    rejects="DINO-24",
    operation="dino",
    origin="a generator of the module's own, seeded where it is made",
)
class NoiseOfOwnGenerator(DINOLoaded):
    """Begins with the same noise in every module."""

    def changed(self) -> None:
        self.own = torch.Generator().manual_seed(0).get_state()

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        outer = torch.get_rng_state()
        torch.set_rng_state(self.own)
        found = super()._denoising_queries(targets)
        self.own = torch.get_rng_state()
        torch.set_rng_state(outer)
        return found


class OtherGroups(DINOLoaded):
    """Lets some groups see each other."""

    def meet(self, one: Tensor, other: Tensor) -> Tensor:
        raise NotImplementedError

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        found = super()._denoising_queries(targets)
        hidden, denoising = found["attn_mask"].clone(), found["content"].shape[1]
        group = torch.arange(denoising) // max(1, 2 * int(targets.counts.max()))
        hidden[:denoising, :denoising] &= ~self.meet(group[:, None], group)
        return found | {"attn_mask": hidden}


@mutant(
    "dino-every-other-group-seen",
    rejects="DINO-25",
    operation="dino",
    origin="blocks of the mask by parity, for two groups",
)
class EveryOtherGroup(OtherGroups):
    """Lets groups g and g + 2 see each other."""

    def meet(self, one: Tensor, other: Tensor) -> Tensor:
        return (one - other) % 2 == 0


@mutant(
    "dino-groups-of-six-bits",
    rejects="DINO-25",
    operation="dino",
    origin="one bit of a word for each group",
)
class GroupsOfSixBits(OtherGroups):
    """Lets groups g and g + 64 see each other."""

    def meet(self, one: Tensor, other: Tensor) -> Tensor:
        return one % 64 == other % 64


@mutant(
    "dino-negatives-hidden",
    rejects="DINO-25",
    operation="dino",
    origin="a group for each kind: blocks of M in place of 2 M",
)
class NegativesHidden(DINOLoaded):
    """Hides the negatives of a group from its positives."""

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        found = super()._denoising_queries(targets)
        hidden, denoising = found["attn_mask"].clone(), found["content"].shape[1]
        block = torch.arange(denoising) // max(1, int(targets.counts.max()))
        hidden[:denoising, :denoising] |= block[:, None] != block
        return found | {"attn_mask": hidden}
