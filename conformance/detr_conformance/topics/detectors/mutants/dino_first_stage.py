"""Mutants of the whole DINO: levels, padding, the first stage, what reaches the backbone (DINO-2 to 7, 15, 16)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.models import DINOLoaded, returning
from detr_reference.features.feature_levels import FeatureLevels


@mutant("dino-level-vectors-missing", rejects="DINO-2", operation="dino", origin="level_embed left out")
class LevelVectorsMissing(DINOLoaded):
    """Tells the encoder nothing of the levels."""

    def changed(self) -> None:
        for layer in self.transformer.encoder.layers:
            layer.register_forward_pre_hook(_without(self), with_kwargs=True)


def _without(model: DINOLoaded) -> Any:
    def hook(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        query, positions, *others = given
        sizes = [int(height * width) for height, width in named["spatial_shapes"].tolist()]
        vectors = torch.cat([v.expand(n, -1) for v, n in zip(model.transformer.level_embeds, sizes, strict=True)])
        return (query, positions - vectors, *others), named

    return hook


@mutant(
    "dino-encoder-unmasked",
    rejects="DINO-3",
    operation="dino",
    origin="detrex issue 134: a mask of zeros in evaluation",
)
class EncoderUnmasked(DINOLoaded):
    """Lets the encoder read padding in evaluation."""

    def changed(self) -> None:
        def hook(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
            query, positions, padding, *others = given
            return (query, positions, torch.zeros_like(padding), *others), named

        for layer in self.transformer.encoder.layers:
            layer.register_forward_pre_hook(hook, with_kwargs=True)


@mutant("dino-padding-selected-last", rejects="DINO-3", operation="dino", origin="scores of padding set to -inf")
class PaddingProposed(DINOLoaded):
    """Forgets that cells of padding propose nothing."""

    def _selected_cells(self, memory: Tensor, levels: FeatureLevels) -> dict[str, Tensor]:
        return super()._selected_cells(memory, levels._replace(padding=torch.zeros_like(levels.padding)))


@mutant("dino-selects-by-first-class", rejects="DINO-4", operation="dino", origin="Deformable DETR's class channel 0")
class SelectsByFirstClass(DINOLoaded):
    """Selects by the score of class 0."""

    def _selected_cells(self, memory: Tensor, levels: FeatureLevels) -> dict[str, Tensor]:
        return _selected_by(self, memory, levels, lambda logits: logits[..., 0])


@mutant("dino-selects-by-sum-of-classes", rejects="DINO-4", operation="dino", origin="sum(-1) for max(-1)")
class SelectsBySum(DINOLoaded):
    """Selects by the sum of the classes' probabilities."""

    def _selected_cells(self, memory: Tensor, levels: FeatureLevels) -> dict[str, Tensor]:
        return _selected_by(self, memory, levels, lambda logits: logits.sigmoid().sum(-1))


def _selected_by(model: DINOLoaded, memory: Tensor, levels: FeatureLevels, score: Any) -> dict[str, Tensor]:
    from detr_reference.queries.two_stage_proposals import encoder_proposals

    found = encoder_proposals(memory, levels.padding, levels.spatial_shapes)
    features = model.transformer.enc_output_norm(model.transformer.enc_output(found["memory"]))
    logits = model.class_embed[-1](features)
    proposals = model.bbox_embed[-1](features) + found["proposals"]
    best = score(logits).topk(model.config.num_queries, dim=1).indices
    rows = {"logits": logits, "proposals": proposals, "memory": features}
    chosen = {name: t.gather(1, best[..., None].expand(-1, -1, t.shape[-1])) for name, t in rows.items()}
    return {"indices": best, **chosen}


@mutant("dino-first-stage-norm-missing", rejects="DINO-4", operation="dino", origin="enc_output_norm left out")
class FirstStageNormMissing(DINOLoaded):
    """Skips the norm of the first stage."""

    def changed(self) -> None:
        self.transformer.enc_output_norm.register_forward_hook(lambda m, given, output: given[0] * m.weight + m.bias)


@mutant("dino-first-stage-heads-of-decoder", rejects="DINO-4", operation="dino", origin="heads shared with the decoder")
class FirstStageHeadsOfDecoder(DINOLoaded):
    """Lets the first decoder layer's class head judge the cells."""

    def changed(self) -> None:
        own = self.class_embed[-1]
        own.register_forward_hook(lambda m, given, output: self.class_embed[0](given[0]) + 0 * output)


@mutant("dino-content-of-selected-memory", rejects="DINO-5", operation="dino", origin="pure query selection")
class PureSelection(DINOLoaded):
    """Lets queries hold what the selected cells held."""

    def _selected_cells(self, memory: Tensor, levels: FeatureLevels) -> dict[str, Tensor]:
        selected = super()._selected_cells(memory, levels)
        self._content = selected["memory"].detach()
        return selected

    def changed(self) -> None:
        def hook(decoder: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
            return (self._content + 0 * given[0][:, -self.config.num_queries :], *given[1:]), named

        self.transformer.decoder.register_forward_pre_hook(hook, with_kwargs=True)


@mutant("dino-content-reversed", rejects="DINO-5", operation="dino", origin="ascending order of scores")
class ContentReversed(DINOLoaded):
    """Gives the best cell the last learned content."""

    def changed(self) -> None:
        def hook(decoder: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
            return (given[0].flip(1), *given[1:]), named

        self.transformer.decoder.register_forward_pre_hook(hook, with_kwargs=True)


@mutant(
    "dino-selected-boxes-undetached", rejects="DINO-6", operation="dino", origin="detach forgotten in mixed selection"
)
class SelectedUndetached(DINOLoaded):
    """Lets the decoder's boxes train the first stage through the references they begin with."""

    def _selected_cells(self, memory: Tensor, levels: FeatureLevels) -> dict[str, Tensor]:
        selected = super()._selected_cells(memory, levels)
        self._references = selected["proposals"].sigmoid()
        return selected

    def changed(self) -> None:
        def through(model: SelectedUndetached, found: dict[str, Tensor]) -> dict[str, Tensor]:
            undetached = self._references - self._references.detach()
            return found | {"pred_boxes": found["pred_boxes"] + undetached}

        returning(self, through)


@mutant("dino-memory-detached-for-decoder", rejects="DINO-6", operation="dino", origin="two stages trained apart")
class MemoryDetachedForDecoder(DINOLoaded):
    """Cuts the encoder off from the decoder's losses."""

    def changed(self) -> None:
        def hook(decoder: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
            return (given[0], given[1].detach(), *given[2:]), named

        self.transformer.decoder.register_forward_pre_hook(hook, with_kwargs=True)


@mutant("dino-first-stage-boxes-detached", rejects="DINO-7", operation="dino", origin="the detached copy returned")
class FirstStageBoxesDetached(DINOLoaded):
    """Returns the boxes of the first stage detached."""

    def changed(self) -> None:
        returning(self, lambda m, found: found | {"enc_boxes": found["enc_boxes"].detach()})


@mutant(
    "dino-first-stage-reads-detached-memory",
    rejects="DINO-7",
    operation="dino",
    origin="two-stage heads on frozen features",
)
class FirstStageReadsDetached(DINOLoaded):
    """Lets the first stage train its own heads alone."""

    def _selected_cells(self, memory: Tensor, levels: FeatureLevels) -> dict[str, Tensor]:
        return super()._selected_cells(memory.detach(), levels)


@mutant("dino-neck-gradient-doubled", rejects="DINO-15", operation="dino", origin="features used twice, counted twice")
class NeckGradientDoubled(DINOLoaded):
    """Doubles the gradient that reaches the backbone."""

    def changed(self) -> None:
        self.backbone.register_forward_hook(lambda m, given, maps: tuple(2 * t - t.detach() for t in maps))


@mutant(
    "dino-scaled-between-stages", rejects="DINO-16", operation="dino", origin="quantisation scales moved across a layer"
)
class ScaledBetweenStages(DINOLoaded):
    """Doubles the backbone's features and halves them again before the neck."""

    def changed(self) -> None:
        self.backbone.register_forward_hook(lambda m, given, maps: tuple(each * 2 for each in maps))
        self.neck.register_forward_pre_hook(lambda m, given: (tuple(each / 2 for each in given[0]),))
