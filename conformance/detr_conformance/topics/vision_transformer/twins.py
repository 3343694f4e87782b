"""Right Vision Transformers, each written in another way than the reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.vision_transformer.mutants.vit import Block, HandWrittenVit, Image, Tokens


@twin("vit-convolution", operation="vit", origin="timm's PatchEmbed")
class Convolution(HandWrittenVit):
    """Embeds patches by a strided convolution."""

    def patches(self, image: Image) -> Tokens:
        return self.patch_embed.proj(image).flatten(2).transpose(1, 2)


@twin("vit-patches-by-reshape", operation="vit", origin="einops 'b c (h p) (w q) -> b (h w) (c p q)'")
class PatchesByReshape(HandWrittenVit):
    """Cuts patches by reshaping and permuting."""

    def patches(self, image: Image) -> Tokens:
        (rows, columns), side = self.grid, self.config.patch_size
        cut = image.unflatten(3, (columns, side)).unflatten(2, (rows, side))
        cut = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        projection = self.patch_embed.proj
        return F.linear(cut, projection.weight.flatten(1), projection.bias)


@twin("vit-positions-after-cat", operation="vit", origin="cat, then one addition")
class PositionsAfterCat(HandWrittenVit):
    """Concatenates first and adds all positions at once, in float32 or better."""

    def embedded(self, patches: Tokens) -> Tokens:
        wide = torch.promote_types(patches.dtype, torch.float32)
        tokens = torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches), 1)
        return (tokens.to(wide) + self.pos_embed.to(wide)).to(patches.dtype)


@twin("vit-norm-written-out", operation="vit", origin="mean and variance in float32, reciprocal root")
class NormWrittenOut(HandWrittenVit):
    """Writes the norm out in float32 or better."""

    def normed(self, x: Tokens, norm: nn.LayerNorm) -> Tokens:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        centred = wide - wide.mean(-1, keepdim=True)
        root = (centred.square().mean(-1, keepdim=True) + self.config.layer_norm_eps).rsqrt()
        return (centred * root * norm.weight + norm.bias).to(x.dtype)


@twin("vit-mlp-in-chunks", operation="vit", origin="the hidden channels of the MLP a few at a time")
class MlpInChunks(HandWrittenVit):
    """Adds up the MLP over halves of its hidden channels; writes GELU by erf."""

    def perceived(self, x: Tokens, block: Block) -> Tokens:
        first, second = block.mlp.fc1, block.mlp.fc2
        total = second.bias.expand(x.shape)
        halves = (first.weight, 0), (first.bias, 0), (second.weight, 1)
        for weight, bias, back in zip(*(part.chunk(2, axis) for part, axis in halves), strict=True):
            total = total + F.linear(self.bent(F.linear(x, weight, bias)), back)
        return total

    def bent(self, hidden: Tokens) -> Tokens:
        return 0.5 * hidden * (1 + torch.erf(hidden * 0.5**0.5))


@twin(
    "vit-scale-folded", operation="vit", origin="layer scale folded into the last layer of the sublayer for inference"
)
class ScaleFolded(HandWrittenVit):
    """Multiplies the last weights of attention and MLP by gamma, and skips the scaling."""

    def attended(self, x: Tokens, block: Block) -> Tokens:
        if not self.config.layer_scale:
            return super().attended(x, block)
        joined = block.attn
        q, k, v = joined.parts(joined.projected(x))
        heads = joined.read(joined.dropped(joined.weights(joined.logits(q, k))), v)
        weight, bias = self.folded(block, "ls1", joined.proj.weight), joined.proj.bias * block.ls1["gamma"]
        return F.dropout(F.linear(joined.join(heads), weight, bias), joined.config.proj_drop, self.training)

    def perceived(self, x: Tokens, block: Block) -> Tokens:
        if not self.config.layer_scale:
            return super().perceived(x, block)
        last = block.mlp.fc2
        hidden = self.bent(block.mlp.fc1(x))
        return F.linear(hidden, self.folded(block, "ls2", last.weight), last.bias * block.ls2["gamma"])

    def folded(self, block: Block, name: str, weight: Tensor) -> Tensor:
        return weight * getattr(block, name)["gamma"][:, None]

    def scaled(self, added: Tokens, block: Block, name: str) -> Tokens:
        return added


@twin("vit-image-by-image", operation="vit", origin="vmap over the batch")
class ImageByImage(HandWrittenVit):
    """Runs every image by itself, and pools with a weighted sum."""

    def forward(self, image: Image) -> Tensor:
        self.check(image)
        return torch.cat([super(ImageByImage, self).forward(one) for one in image.split(1)])

    def mean(self, x: Tokens) -> Float[Tensor, "batch embed"]:
        weights = torch.full((x.shape[1],), 1 / (x.shape[1] - 1), dtype=torch.float64)
        weights[0] = 0
        return torch.einsum("bnc,n->bc", x.to(torch.float64), weights).to(x.dtype)
