"""Whole models that spoil a training (chapter 21), though a single call of a new one looks right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.models import DeformableInSteps, DETRInSteps, DINOLoaded
from detr_reference.features.feature_levels import FeatureLevels
from detr_reference.losses.batch_targets import BatchTargets

DETR_OP = "detr"
DEFORMABLE = "deformable_detr"
DINO_OP = "dino"


@mutant("training-fused-weights-kept", rejects="TRN-1", operation=DETR_OP, origin="fused weights, made at first use")
class FusedWeightsKept(DETRInSteps):
    """Keeps the class head's matrix of the first call; its gradients are right, and no step ever shows."""

    kept: Tensor | None = None

    def predictions(self, states: list[Tensor]) -> dict[str, Tensor]:
        weight = self.class_embed.weight
        if self.kept is None:
            self.kept = weight.detach().clone()
        used = self.kept + (weight - weight.detach())
        logits = [nn.functional.linear(state, used, self.class_embed.bias) for state in states]
        return {**super().predictions(states), "pred_logits": torch.stack(logits)}


@mutant("training-dropout-stays", rejects="TRN-1", operation=DEFORMABLE, origin="nn.Dropout(0.1), not the configured")
class DropoutStays(DeformableInSteps):
    """Drops a tenth of the valid ratios while training, whatever the configuration says."""

    def decoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        dropped = nn.functional.dropout(levels.valid_ratios, 0.1, training=self.training)
        return levels._replace(valid_ratios=dropped)


@mutant("training-backbone-detached", rejects="TRN-3", operation=DETR_OP, origin="no_grad around the whole backbone")
class BackboneDetached(DETRInSteps):
    """Trains none of the backbone."""

    def features(self, images: Tensor) -> Tensor:
        return super().features(images).detach()


@mutant("training-denoising-labels-detached", rejects="TRN-3", operation=DINO_OP, origin="content of noised targets")
class DenoisingLabelsDetached(DINOLoaded):
    """Hands out the denoising content detached, so that the label embedding never learns."""

    def _denoising_queries(self, targets: BatchTargets) -> dict[str, Tensor]:
        found = super()._denoising_queries(targets)
        return {**found, "content": found["content"].detach()}


@mutant("training-boxes-learn-from-background", rejects="TRN-3", operation=DETR_OP, origin="a box regulariser left in")
class BoxesLearnFromBackground(DETRInSteps):
    """Lets the logits depend on the boxes by a hair: box heads are trained by images without boxes."""

    def predictions(self, states: list[Tensor]) -> dict[str, Tensor]:
        found = super().predictions(states)
        return {**found, "pred_logits": found["pred_logits"] + 1e-9 * found["pred_boxes"].sum(-1, keepdim=True)}


@mutant("training-first-stage-detached", rejects="TRN-2", operation=DINO_OP, origin="memory detached for the selection")
class FirstStageDetached(DINOLoaded):
    """Lets the encoder learn nothing from the first stage's losses."""

    def _selected_cells(self, memory: Tensor, levels: FeatureLevels) -> dict[str, Tensor]:
        return super()._selected_cells(memory.detach(), levels)


@mutant("training-encoder-gradient-in-half", rejects="TRN-2", operation=DEFORMABLE, origin="checkpointing run in fp16")
class EncoderGradientRounded(DeformableInSteps):
    """Rounds the gradient that leaves the encoder to float16."""

    def encoder_levels(self, levels: FeatureLevels) -> FeatureLevels:
        if levels.features.requires_grad:
            levels.features.register_hook(lambda gradient: gradient.half().to(gradient.dtype))
        return levels


@mutant("training-norms-drift", rejects="TRN-4", operation=DETR_OP, origin="batch norm not frozen in training mode")
class NormsDrift(DETRInSteps):
    """Moves the backbone's running means a little in every training call."""

    def features(self, images: Tensor) -> Tensor:
        found = super().features(images)
        if self.training:
            for name, buffer in self.backbone.named_buffers():
                if name.endswith("running_mean"):
                    buffer.mul_(0.99)
        return found


@mutant("training-memory-of-last-batch", rejects="TRN-4", operation=DEFORMABLE, origin="a momentum of level vectors")
class LevelVectorsLag(DeformableInSteps):
    """Reads the level vectors with a share of what they were a call ago."""

    before: Tensor | None = None

    def level_vectors(self) -> Tensor:
        now = self.transformer.level_embeds
        lag = torch.zeros_like(now) if self.before is None else self.before - now.detach()
        self.before = now.detach().clone()
        return now + 0.5 * lag


@mutant(
    "training-gradients-overwritten", rejects="TRN-5", operation=DETR_OP, origin="p.grad = g in place of p.grad += g"
)
class GradientsOverwritten(DETRInSteps):
    """Writes the gradient of the queries over the one that is there."""

    def changed(self) -> None:
        self.query_embed.weight.register_hook(self._overwrite)

    def _overwrite(self, gradient: Tensor) -> None:
        self.query_embed.weight.grad = None


@mutant("training-forgets-in-forward", rejects="TRN-5", operation=DINO_OP, origin="zero_grad inside of forward")
class ForgetsInForward(DINOLoaded):
    """Clears all gradients at the beginning of each training call."""

    def forward(self, *given: Any, **named: Any) -> dict[str, Tensor]:
        if self.training:
            self.zero_grad()
        return super().forward(*given, **named)


@mutant(
    "training-refined-heads-slow", rejects="TRN-2", operation=DEFORMABLE, origin="a rate of heads left in the graph"
)
class RefinedHeadsSlow(DeformableInSteps):
    """Gives the box heads of refinement a tenth of their gradients while training."""

    def changed(self) -> None:
        if self.config.box_refinement:
            for head in self.bbox_embed:
                head.register_forward_hook(lambda m, given, delta: self._slowed(delta))

    def _slowed(self, delta: Tensor) -> Tensor:
        return 0.1 * delta + 0.9 * delta.detach() if self.training else delta


@mutant(
    "training-first-stage-of-selected", rejects="TRN-3", operation=DEFORMABLE, origin="a loss of matched cells alone"
)
class ProposalsDetached(DeformableInSteps):
    """Trains no box head of the first stage while training."""

    def returned(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.training and "enc_boxes" in found:
            return found | {"enc_boxes": found["enc_boxes"].detach()}
        return found


@mutant("training-learned-boxes-frozen", rejects="TRN-3", operation=DINO_OP, origin="anchors frozen, as detrex can")
class LearnedBoxesFrozen(DINOLoaded):
    """Does not train the boxes of static selection while training."""

    def changed(self) -> None:
        def hook(decoder: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (*given[:2], given[2].detach(), *given[3:]) if decoder.training else given

        self.transformer.decoder.register_forward_pre_hook(hook)
