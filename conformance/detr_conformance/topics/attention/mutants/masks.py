"""Mutants of multi-head attention: what the two masks mean (MHA-8 to MHA-12)."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.attention.mutants.multihead_attention import (
    HandWrittenAttention,
    Inputs,
    Padding,
    Pairs,
    Scores,
)

Masks = tuple[Tensor | None, Pairs | None]


@mutant("attn-mask-inverted", rejects="MHA-8", origin="scaled_dot_product_attention and timm: True may attend")
class AttnMaskInverted(HandWrittenAttention):
    """Takes True for allowed."""

    def by_head(self, attn_mask: Tensor, scores: Scores) -> Tensor:
        return super().by_head(~attn_mask if attn_mask.dtype == torch.bool else attn_mask, scores)


@mutant("attn-mask-as-number", rejects="MHA-8", origin="scores + attn_mask, whatever its dtype")
class AttnMaskAsNumber(HandWrittenAttention):
    """Adds a boolean mask, as 1 where True."""

    def masks(self, scores: Scores, attn_mask: Tensor | None, padding: Padding | None) -> Masks:
        return super().masks(scores, None if attn_mask is None else attn_mask.to(scores.dtype), padding)


@mutant("attn-mask-turned-if-square", rejects="MHA-8", origin="mask[key, query] in index notation")
class AttnMaskTurnedIfSquare(HandWrittenAttention):
    """Exchanges the axes of a boolean mask where there are as many keys as queries."""

    def by_head(self, attn_mask: Tensor, scores: Scores) -> Tensor:
        square = attn_mask.shape[-1] == attn_mask.shape[-2] and attn_mask.dtype == torch.bool
        return super().by_head(attn_mask.mT if square else attn_mask, scores)


@mutant("attn-mask-on-the-first-head", rejects="MHA-8", origin="a kernel which is given the mask without its strides")
class AttnMaskOnTheFirstHead(HandWrittenAttention):
    """Applies a mask (Q, K) to head 0 alone."""

    def by_head(self, attn_mask: Tensor, scores: Scores) -> Tensor:
        if attn_mask.ndim == 3:
            return super().by_head(attn_mask, scores)
        return torch.cat((attn_mask[None], torch.zeros_like(attn_mask).expand(self.heads - 1, -1, -1)))


@mutant("attn-mask-by-key-alone", rejects="MHA-8", origin="attn_mask[0] used for all queries, as for padding")
class AttnMaskByKeyAlone(HandWrittenAttention):
    """Uses the first query's row of a boolean mask for all."""

    def by_head(self, attn_mask: Tensor, scores: Scores) -> Tensor:
        first = attn_mask[..., :1, :].expand_as(attn_mask) if attn_mask.dtype == torch.bool else attn_mask
        return super().by_head(first, scores)


@mutant("heads-before-images", rejects="MHA-9", origin="mask.repeat(M, 1, 1) in place of repeat_interleave(M, 0)")
class HeadsBeforeImages(HandWrittenAttention):
    """Reads slice m * B + b for head m of image b."""

    def by_head(self, attn_mask: Tensor, scores: Scores) -> Tensor:
        if attn_mask.ndim == 2:
            return attn_mask
        return attn_mask.unflatten(0, (self.heads, len(scores))).transpose(0, 1)


@mutant("mask-of-the-first-head", rejects="MHA-9", origin="one mask an image, as denoising has it, taken for granted")
class MaskOfTheFirstHead(HandWrittenAttention):
    """Uses the slice of an image's first head for all its heads."""

    def by_head(self, attn_mask: Tensor, scores: Scores) -> Tensor:
        return attn_mask if attn_mask.ndim == 2 else super().by_head(attn_mask, scores)[:, :1]


@mutant("mask-of-the-first-image", rejects="MHA-9", origin="mask[:M]; the masks of denoising agree between images")
class MaskOfTheFirstImage(HandWrittenAttention):
    """Uses the slices of the first image for all."""

    def by_head(self, attn_mask: Tensor, scores: Scores) -> Tensor:
        return attn_mask if attn_mask.ndim == 2 else attn_mask[: self.heads]


@mutant("forbidden-in-any-head", rejects="MHA-9", origin="mask.view(B, M, Q, K).any(1) before a kernel of three axes")
class ForbiddenInAnyHead(HandWrittenAttention):
    """Forbids a pair to all heads if one head is forbidden it."""

    def by_head(self, attn_mask: Tensor, scores: Scores) -> Tensor:
        mask = super().by_head(attn_mask, scores)
        return mask.any(1, keepdim=True) if mask.ndim == 4 and mask.dtype == torch.bool else mask


@mutant("additive-taken-for-forbidding", rejects="MHA-10", origin="attn_mask.bool(), attn_mask != 0")
class AdditiveTakenForForbidding(HandWrittenAttention):
    """Forbids where an additive mask is negative, and adds nothing."""

    def masks(self, scores: Scores, attn_mask: Tensor | None, padding: Padding | None) -> Masks:
        if attn_mask is not None and attn_mask.dtype != torch.bool:
            attn_mask = attn_mask < 0
        return super().masks(scores, attn_mask, padding)


@mutant("only-minus-infinity-counts", rejects="MHA-10", origin="attn_mask == -inf handed to a kernel without a bias")
class OnlyMinusInfinityCounts(HandWrittenAttention):
    """Forbids at -inf and forgets every finite bias."""

    def masks(self, scores: Scores, attn_mask: Tensor | None, padding: Padding | None) -> Masks:
        return None, super().masks(scores, attn_mask, padding)[1]


@mutant("bias-after-softmax", rejects="MHA-10", origin="weights * exp(bias): a decay on top of attention")
class BiasAfterSoftmax(HandWrittenAttention):
    """Multiplies the weights by exp(bias), so that they no longer sum to one."""

    def weights(self, scores: Scores, bias: Tensor | None, forbidden: Pairs | None) -> Scores:
        weights = super().weights(scores, None, forbidden)
        return weights if bias is None else weights * bias.exp()


@mutant("padding-inverted", rejects="MHA-11", origin="transformers' pixel_mask: 1 is valid")
class PaddingInverted(HandWrittenAttention):
    """Ignores the keys that are marked False."""

    def cleared(self, inputs: Inputs, padding: Padding | None) -> Inputs:
        return inputs

    def padded_pairs(self, padding: Padding, scores: Scores) -> Pairs:
        return super().padded_pairs(~padding, scores)


@mutant(
    "padding-of-queries-if-square",
    rejects="MHA-11",
    origin="mask[:, None, :, None]; docstrings that say (bs, num_query)",
)
class PaddingOfQueriesIfSquare(HandWrittenAttention):
    """Forbids padded tokens as queries, not as keys, where the two are as many."""

    def padded_pairs(self, padding: Padding, scores: Scores) -> Pairs:
        pairs = super().padded_pairs(padding, scores)
        return pairs.mT if scores.shape[-1] == scores.shape[-2] else pairs


@mutant("padding-of-both-if-square", rejects="MHA-11", origin="transformers, detr before 5: outer products of masks")
class PaddingOfBothIfSquare(HandWrittenAttention):
    """Forbids padded tokens as keys and as queries, where the two are as many."""

    def padded_pairs(self, padding: Padding, scores: Scores) -> Pairs:
        pairs = super().padded_pairs(padding, scores)
        return pairs | pairs.mT if scores.shape[-1] == scores.shape[-2] else pairs


@mutant(
    "padding-of-the-first-image", rejects="MHA-11", origin="key_padding_mask[0]; in tests all images are of one size"
)
class PaddingOfTheFirstImage(HandWrittenAttention):
    """Uses the first image's padding for all."""

    def padded_pairs(self, padding: Padding, scores: Scores) -> Pairs:
        return super().padded_pairs(padding[:1].expand_as(padding), scores)


@mutant("padding-by-length", rejects="MHA-11", origin="varlen kernels: seqlens = (~mask).sum(-1)")
class PaddingByLength(HandWrittenAttention):
    """Counts the valid keys and takes as many from the beginning."""

    def padded_pairs(self, padding: Padding, scores: Scores) -> Pairs:
        valid = (~padding).sum(-1, keepdim=True)
        return super().padded_pairs(torch.arange(padding.shape[1]) >= valid, scores)


@mutant("padding-repeated-by-image", rejects="MHA-11", origin="mask.repeat(M, 1) read as (B, M, K)")
class PaddingRepeatedByImage(HandWrittenAttention):
    """Repeats the padding image by image where it should head by head."""

    def padded_pairs(self, padding: Padding, scores: Scores) -> Pairs:
        repeated = padding.repeat(self.heads, 1).unflatten(0, (len(padding), self.heads))
        return repeated[:, :, None].expand(scores.shape)


@mutant("padded-values-are-zero", rejects="MHA-11", origin="deformable attention's rule: zero, and no renormalisation")
class PaddedValuesAreZero(HandWrittenAttention):
    """Sets padded values to zero, and lets padded keys take their share of the weight."""

    def read(self, weights: Scores, v: Tensor) -> Tensor:
        return super().read(weights, v if self.padded is None else v.masked_fill(self.padded[:, None, :, None], 0))

    def masks(self, scores: Scores, attn_mask: Tensor | None, padding: Padding | None) -> Masks:
        self.padded = padding
        return super().masks(scores, attn_mask, None)


@mutant("padding-ignored-beside-a-mask", rejects="MHA-12", origin="if attn_mask is None: attn_mask = padding")
class PaddingIgnoredBesideAMask(HandWrittenAttention):
    """Looks at the padding only where there is no attention mask."""

    def masks(self, scores: Scores, attn_mask: Tensor | None, padding: Padding | None) -> Masks:
        return super().masks(scores, attn_mask, padding if attn_mask is None else None)


@mutant("mask-ignored-beside-padding", rejects="MHA-12", origin="elif: one mask or the other")
class MaskIgnoredBesidePadding(HandWrittenAttention):
    """Looks at the attention mask only where there is no padding."""

    def masks(self, scores: Scores, attn_mask: Tensor | None, padding: Padding | None) -> Masks:
        return super().masks(scores, attn_mask if padding is None else None, padding)


@mutant("forbidden-by-both", rejects="MHA-12", origin="attn_mask & padding, right for masks of the other polarity")
class ForbiddenByBoth(HandWrittenAttention):
    """Forbids what both boolean masks forbid."""

    def masks(self, scores: Scores, attn_mask: Tensor | None, padding: Padding | None) -> Masks:
        if attn_mask is None or padding is None or attn_mask.dtype != torch.bool:
            return super().masks(scores, attn_mask, padding)
        return None, self.by_head(attn_mask, scores) & self.padded_pairs(padding, scores)


@mutant("padding-overwrites-the-bias", rejects="MHA-12", origin="one additive mask, made anew from the padding")
class PaddingOverwritesTheBias(HandWrittenAttention):
    """Drops the finite biases of an additive mask where there is padding."""

    def masks(self, scores: Scores, attn_mask: Tensor | None, padding: Padding | None) -> Masks:
        bias, forbidden = super().masks(scores, attn_mask, padding)
        return bias if padding is None else None, forbidden
