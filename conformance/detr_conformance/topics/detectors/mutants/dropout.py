"""Mutants of the dropout of whole models (DETR-14, DDETR-16, DINO-22), and of what is trained (BLK-31)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.models import DeformableInSteps, DETRInSteps, DINOLoaded

DETR_OP = "detr"
DEFORMABLE = "deformable_detr"
DINO_OP = "dino"


class OtherDropout(nn.Module):
    """Drops by a mask of its own; `mask` says of which shape, and `kept` how what is left is scaled."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape)

    def scale(self) -> float:
        return 1 / (1 - self.p) if self.p < 1 else 0.0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        kept = torch.rand(self.mask_shape(x), device=x.device) >= self.p
        return x * kept * self.scale()


class WholeImages(OtherDropout):
    """One fate for all that an image has."""

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return (len(x), *[1] * (x.ndim - 1))


class WholeTokens(OtherDropout):
    """One fate for all channels of a token."""

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return (*x.shape[:-1], 1)


class SameForAllImages(OtherDropout):
    """One mask for all images of a batch."""

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return (1, *x.shape[1:])


class Unscaled(OtherDropout):
    """What is left stays as it is."""

    def scale(self) -> float:
        return 1.0


class MaskKept(OtherDropout):
    """The mask of the first call, as long as the shape is the same."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.masks: dict[tuple[int, ...], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        shape = tuple(x.shape)
        if shape not in self.masks:
            self.masks[shape] = torch.rand(shape) >= self.p
        return x * self.masks[shape] * self.scale()


def drop_otherwise(part: nn.Module, kind: type[OtherDropout] | None, within: str = "") -> None:
    """Puts another dropout in the place of every one of torch's below these names; None: none at all."""
    for name, module in list(part.named_modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout) and within in name:
                setattr(module, child_name, nn.Identity() if kind is None else kind(child.p))


@mutant("detr-whole-images-dropped", rejects="DETR-14", operation=DETR_OP, origin="stochastic depth, for dropout")
class WholeImagesDropped(DETRInSteps):
    """Drops in the decoder what a sublayer adds for a whole image."""

    def changed(self) -> None:
        drop_otherwise(self.transformer.decoder, WholeImages)


@mutant(
    "detr-encoder-without-dropout", rejects="DETR-14", operation=DETR_OP, origin="nn.TransformerEncoder's fast path"
)
class EncoderWithoutDropout(DETRInSteps):
    """Drops nothing in the networks of the encoder."""

    def changed(self) -> None:
        drop_otherwise(self.transformer.encoder, None, within="ffns")


@mutant("detr-whole-tokens-dropped", rejects="DETR-14", operation=DETR_OP, origin="nn.Dropout1d")
class WholeTokensDropped(DETRInSteps):
    """Drops all channels of a token at once in self-attention."""

    def changed(self) -> None:
        drop_otherwise(self.transformer.decoder, WholeTokens, within="attentions.0")


@mutant("deformable-dropout-unscaled", rejects="DDETR-16", operation=DEFORMABLE, origin="x * mask")
class DropoutUnscaled(DeformableInSteps):
    """Does not divide what is left."""

    def changed(self) -> None:
        drop_otherwise(self.transformer, Unscaled, within="attentions.1")


@mutant("deformable-mask-kept", rejects="DDETR-16", operation=DEFORMABLE, origin="masks cached by shape")
class DropoutMaskKept(DeformableInSteps):
    """Drops in every call what it dropped in the first."""

    def changed(self) -> None:
        drop_otherwise(self.transformer.encoder, MaskKept, within="ffns")


@mutant("dino-ignores-dropout", rejects="DINO-22", operation=DINO_OP, origin="published with dropout 0.0")
class IgnoresDropout(DINOLoaded):
    """Drops nothing whatever is configured."""

    def changed(self) -> None:
        drop_otherwise(self, None)


@mutant("dino-one-mask-for-all-images", rejects="DINO-22", operation=DINO_OP, origin="a mask of (1, query, channel)")
class OneMaskForAll(DINOLoaded):
    """Drops the same of every image."""

    def changed(self) -> None:
        drop_otherwise(self.transformer.encoder, SameForAllImages, within="attentions.0")


# -- what is trained --------------------------------------------------------------------------------------------


@mutant(
    "detr-frozen-stages-trained", rejects="BLK-31", operation=DETR_OP, origin="backbone_frozen_stages not handed on"
)
class FrozenStagesTrained(DETRInSteps):
    """Trains the whole backbone."""

    def changed(self) -> None:
        self.backbone.requires_grad_(True)


@mutant("deformable-thaws-while-training", rejects="BLK-31", operation=DEFORMABLE, origin="train() that thaws all")
class ThawsWhileTraining(DeformableInSteps):
    """Thaws the stem in training mode."""

    def train(self, mode: bool = True) -> Any:
        self.backbone.get_submodule("conv1").requires_grad_(mode)
        return super().train(mode)


@mutant("dino-temperature-learned", rejects="BLK-31", operation=DINO_OP, origin="a learned scale of the class logits")
class TemperatureLearned(DINOLoaded):
    """Multiplies every logit by a parameter that begins at one."""

    def changed(self) -> None:
        self.scale = nn.ParameterList([nn.Parameter(torch.ones(()))])
        for head in self.class_embed:
            head.register_forward_hook(lambda m, given, logits: logits * self.scale[0])

    def load_state_dict(self, state: Any, *options: Any) -> Any:
        return super().load_state_dict({**state, "scale.0": self.scale[0].detach()}, *options)
