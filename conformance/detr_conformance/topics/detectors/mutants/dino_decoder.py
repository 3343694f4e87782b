"""Mutants of the whole DINO: its layers, looking forward, embedded references (DINO-1, DINO-8, DINO-14)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.models import DINOLoaded, returning


@mutant("dino-last-layer-missing", rejects="DINO-1", operation="dino", origin="intermediate predictions alone")
class LastLayerMissing(DINOLoaded):
    """Repeats the layer before the last in place of the last."""

    def changed(self) -> None:
        returning(self, lambda m, found: {n: _without_last(t) if n[0] == "p" else t for n, t in found.items()})


def _without_last(layers: Tensor) -> Tensor:
    return torch.cat((layers[:-1], layers[-2:-1])) if len(layers) > 1 else layers * 0.5


@mutant(
    "dino-looks-forward-once", rejects="DINO-8", operation="dino", origin="transformers, Grounding DINO and RT-DETR"
)
class LooksForwardOnce(DINOLoaded):
    """Detaches the references that predictions are added to."""

    def changed(self) -> None:
        object.__setattr__(self.transformer.decoder.config, "look_forward_twice", False)


@mutant("dino-class-head-of-next-layer", rejects="DINO-8", operation="dino", origin="heads taken one too far")
class ClassHeadOfNextLayer(DINOLoaded):
    """Adds nothing of the next layer's class head to the logits, but lets it learn from them."""

    def changed(self) -> None:
        for head, other in zip(self.class_embed[:-1], self.class_embed[1:], strict=True):
            head.register_forward_hook(
                lambda m, given, output, other=other: (
                    output + (o := nn.functional.linear(given[0], other.weight)) - o.detach()
                )
            )


@mutant("dino-ratios-of-last-level-embedded", rejects="DINO-14", operation="dino", origin="the last level's ratio")
class RatiosOfLastLevel(DINOLoaded):
    """Embeds boxes as they lie on the coarsest map."""

    def changed(self) -> None:
        decoder: Any = self.transformer.decoder
        kept = decoder._query_pos
        decoder._query_pos = lambda boxes, ratios: kept(boxes, ratios.flip(1))


@mutant("dino-always-embeds-scaled-references", rejects="DINO-14", operation="dino", origin="the setting is ignored")
class AlwaysScaled(DINOLoaded):
    """Embeds scaled references whatever the setting says."""

    def changed(self) -> None:
        object.__setattr__(self.transformer.decoder.config, "embed_scaled_references", True)
