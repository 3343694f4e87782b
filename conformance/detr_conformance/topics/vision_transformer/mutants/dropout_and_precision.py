"""Mutants of the Vision Transformer: what is dropped in training, precision, gradients (VIT-20 to VIT-22)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.vision_transformer.mutants.vit import Block, HandWrittenVit, Tokens


@mutant("vit-dropout-of-tokens", rejects="VIT-20", origin="hidden_dropout_prob=0.1 of the BERT configuration")
class DropoutOfTokens(HandWrittenVit):
    """Drops channels of the MLP while training."""

    def bent(self, hidden: Tokens) -> Tokens:
        return F.dropout(super().bent(hidden), 0.1, self.training)


@mutant("vit-stochastic-depth", rejects="VIT-20", origin="drop_path 0.1 of a training recipe")
class StochasticDepth(HandWrittenVit):
    """Skips sublayers of single images while training."""

    def scaled(self, added: Tokens, block: Block, name: str) -> Tokens:
        kept = F.dropout(torch.ones_like(added[:, :1, :1]), 0.1, self.training)
        return super().scaled(added, block, name) * kept


@mutant("vit-residual-in-bfloat16", rejects="VIT-21", origin="a stream kept in bfloat16 to save memory")
class ResidualInBfloat16(HandWrittenVit):
    """Rounds the stream to bfloat16 after each block."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        return super().through(x, block, index).to(torch.bfloat16).to(x.dtype)


@mutant("vit-patches-in-float32", rejects="VIT-21", origin="TF32-like convolution: float32 whatever the dtype")
class PatchesInFloat32(HandWrittenVit):
    """Embeds float64 patches in float32."""

    def patches(self, image: Tensor) -> Tokens:
        return super().patches(image).float().to(image.dtype)


@mutant("vit-patches-frozen", rejects="VIT-22", origin="MoCo v3: the patch embedding is not trained")
class PatchesFrozen(HandWrittenVit):
    """Lets no gradient reach the patch embedding."""

    def patches(self, image: Tensor) -> Tokens:
        patches = super().patches(image)
        return patches.detach() + 0 * patches


@mutant("vit-gradient-stops-at-blocks", rejects="VIT-22", origin="x = block(x.detach()), layer-wise training")
class GradientStopsAtBlocks(HandWrittenVit):
    """Cuts the gradient of the stream in front of every block but the first."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        return super().through(x.detach() + 0 * x if index else x, block, index)
