"""Mutants of the Vision Transformer: norms, and which tokens are returned (VIT-14 to VIT-19)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.vision_transformer.mutants.vit import HandWrittenVit, Tokens


@mutant("vit-variance-unbiased", rejects="VIT-14", origin="x.std(-1), whose default divides by C - 1")
class VarianceUnbiased(HandWrittenVit):
    """Divides the squares by C - 1."""

    def normed(self, x: Tokens, norm: nn.LayerNorm) -> Tokens:
        variance = x.var(-1, keepdim=True) + self.config.layer_norm_eps
        return (x - x.mean(-1, keepdim=True)) / variance.sqrt() * norm.weight + norm.bias


@mutant("vit-rms-norm", rejects="VIT-14", origin="RMSNorm for LayerNorm")
class RmsNorm(HandWrittenVit):
    """Does not subtract the mean."""

    def normed(self, x: Tokens, norm: nn.LayerNorm) -> Tokens:
        square = x.square().mean(-1, keepdim=True) + self.config.layer_norm_eps
        return x / square.sqrt() * norm.weight + norm.bias


@mutant("vit-norm-not-affine", rejects="VIT-14", origin="elementwise_affine=False")
class NormNotAffine(HandWrittenVit):
    """Leaves out the weight of the norms, which are ones at initialisation."""

    def normed(self, x: Tokens, norm: nn.LayerNorm) -> Tokens:
        return super().normed(x, norm) / norm.weight + norm.bias * (1 - 1 / norm.weight)


@mutant("vit-norm-over-tokens", rejects="VIT-14", origin="normalized_shape=(tokens, channels), or dim=1")
class NormOverTokens(HandWrittenVit):
    """Takes mean and variance over all tokens of an image."""

    def normed(self, x: Tokens, norm: nn.LayerNorm) -> Tokens:
        return F.layer_norm(x, x.shape[1:], eps=self.config.layer_norm_eps) * norm.weight + norm.bias


@mutant("vit-default-eps", rejects="VIT-15", origin="nn.LayerNorm(dim), whose eps is 1e-5")
class DefaultEps(HandWrittenVit):
    """Has PyTorch's eps in all norms."""

    def normed(self, x: Tokens, norm: nn.LayerNorm) -> Tokens:
        return norm(x)


@mutant("vit-eps-of-timm", rejects="VIT-15", origin="1e-6 for a checkpoint trained with 1e-12")
class EpsOfTimm(HandWrittenVit):
    """Adds 1e-6 where the configuration says 1e-12."""

    def normed(self, x: Tokens, norm: nn.LayerNorm) -> Tokens:
        eps = max(1e-6, self.config.layer_norm_eps)
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, eps)


@mutant("vit-final-norm-default-eps", rejects="VIT-15", origin="eps handed to the blocks only")
class FinalNormDefaultEps(HandWrittenVit):
    """Has PyTorch's eps in the final norm."""

    def normed(self, x: Tokens, norm: nn.LayerNorm) -> Tokens:
        return norm(x) if norm is self.norm else super().normed(x, norm)


@mutant("vit-eps-beside-the-root", rejects="VIT-15", origin="std + eps, as BERT-like code in NumPy has it")
class EpsBesideTheRoot(HandWrittenVit):
    """Adds eps to the deviation instead of the variance."""

    def normed(self, x: Tokens, norm: nn.LayerNorm) -> Tokens:
        deviation = x.var(-1, correction=0, keepdim=True).sqrt() + self.config.layer_norm_eps
        return (x - x.mean(-1, keepdim=True)) / deviation * norm.weight + norm.bias


@mutant("vit-no-final-norm", rejects="VIT-16", origin="features of the last block taken by a hook")
class NoFinalNorm(HandWrittenVit):
    """Leaves out the final norm."""

    def pooled(self, x: Tokens) -> Tensor:
        return super().pooled(x) if self.config.pool == "cls" else self.unnormed(x)

    def unnormed(self, x: Tokens) -> Tensor:
        return x if self.config.pool == "none" else self.mean(x)


@mutant("vit-norm-after-mean", rejects="VIT-16", origin="timm's fc_norm for global_pool='avg', BEiT")
class NormAfterMean(HandWrittenVit):
    """Normalises the mean of the patches."""

    def pooled(self, x: Tokens) -> Tensor:
        return self.normed(self.mean(x), self.norm) if self.config.pool == "mean" else super().pooled(x)


@mutant("vit-normed-twice", rejects="VIT-16", origin="encoder and head each own the final norm")
class NormedTwice(HandWrittenVit):
    """Applies the final norm twice."""

    def pooled(self, x: Tokens) -> Tensor:
        return super().pooled(self.normed(x, self.norm))


@mutant("vit-class-pool-takes-last", rejects="VIT-17", origin="x[:, -1], as a language model's last token")
class ClassPoolTakesLast(HandWrittenVit):
    """Returns the last patch for the class token."""

    def pooled(self, x: Tokens) -> Tensor:
        return super().pooled(x.flip(1) if self.config.pool == "cls" else x)


@mutant("vit-class-pool-through-tanh", rejects="VIT-17", origin="BERT's pooler, kept in transformers' ViT")
class ClassPoolThroughTanh(HandWrittenVit):
    """Passes the class token through tanh."""

    def pooled(self, x: Tokens) -> Tensor:
        pooled = super().pooled(x)
        return pooled.tanh() if self.config.pool == "cls" else pooled


@mutant("vit-mean-with-class-token", rejects="VIT-18", origin="x.mean(1), timm's pool_include_prefix")
class MeanWithClassToken(HandWrittenVit):
    """Takes the mean of all tokens."""

    def mean(self, x: Tokens) -> Float[Tensor, "batch embed"]:
        return x.mean(1)


@mutant("vit-mean-over-all-positions", rejects="VIT-18", origin="sum of the patches divided by the number of tokens")
class MeanOverAllPositions(HandWrittenVit):
    """Divides the sum of the patches by N + 1."""

    def mean(self, x: Tokens) -> Float[Tensor, "batch embed"]:
        return x[:, 1:].sum(1) / x.shape[1]


@mutant("vit-maximum-pool", rejects="VIT-18", origin="global_pool='max'")
class MaximumPool(HandWrittenVit):
    """Takes the maximum of the patches."""

    def mean(self, x: Tokens) -> Float[Tensor, "batch embed"]:
        return x[:, 1:].amax(1)


@mutant("vit-patches-only", rejects="VIT-19", origin="dense features: x[:, num_prefix_tokens:]")
class PatchesOnly(HandWrittenVit):
    """Returns the patches without the class token for the pool "none"."""

    def pooled(self, x: Tokens) -> Tensor:
        pooled = super().pooled(x)
        return pooled[:, 1:] if self.config.pool == "none" else pooled


@mutant("vit-class-token-moved-last", rejects="VIT-19", origin="patches first, then prefix tokens")
class ClassTokenMovedLast(HandWrittenVit):
    """Returns the class token behind the patches for the pool "none"."""

    def pooled(self, x: Tokens) -> Tensor:
        pooled = super().pooled(x)
        return pooled.roll(-1, 1) if self.config.pool == "none" else pooled
