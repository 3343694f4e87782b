"""Mutants of the Vision Transformer: the blocks (VIT-7 to VIT-13)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.attention.mutants.self_attention import HandWrittenSelfAttention
from detr_conformance.topics.attention.mutants.self_attention_formula import BiasIgnored, Unscaled
from detr_conformance.topics.vision_transformer.mutants.vit import Block, HandWrittenVit, Tokens
from detr_reference.attention.config import SelfAttentionConfig


@mutant("vit-post-norm", rejects="VIT-7", origin="the original Transformer, DETR")
class PostNorm(HandWrittenVit):
    """Normalises the sum of stream and sublayer."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        x = self.normed(x + self.scaled(self.attended(x, block), block, "ls1"), block.norm1)
        return self.normed(x + self.scaled(self.perceived(x, block), block, "ls2"), block.norm2)


@mutant("vit-residual-post-norm", rejects="VIT-7", origin="timm's ResPostBlock, Swin V2")
class ResidualPostNorm(HandWrittenVit):
    """Normalises what the sublayer returns."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        x = x + self.scaled(self.normed(self.attended(x, block), block.norm1), block, "ls1")
        return x + self.scaled(self.normed(self.perceived(x, block), block.norm2), block, "ls2")


@mutant("vit-normed-residual", rejects="VIT-7", origin="x = norm(x); x = x + attn(x)")
class NormedResidual(HandWrittenVit):
    """Carries the normalised copy on as the stream."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        x = self.normed(x, block.norm1)
        x = x + self.scaled(self.attended(x, block), block, "ls1")
        x = self.normed(x, block.norm2)
        return x + self.scaled(self.perceived(x, block), block, "ls2")


@mutant("vit-block-without-norms", rejects="VIT-7", origin="norms fused away, their weights forgotten")
class BlockWithoutNorms(HandWrittenVit):
    """Leaves the norms of the blocks out."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        x = x + self.scaled(self.attended(x, block), block, "ls1")
        return x + self.scaled(self.perceived(x, block), block, "ls2")


@mutant("vit-mlp-first", rejects="VIT-8", origin="sandwich and macaron orders")
class MlpFirst(HandWrittenVit):
    """Runs the MLP before the attention."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        x = x + self.scaled(self.perceived(self.normed(x, block.norm2), block), block, "ls2")
        return x + self.scaled(self.attended(self.normed(x, block.norm1), block), block, "ls1")


@mutant("vit-parallel-block", rejects="VIT-8", origin="ViT-22B: both sublayers read the same stream")
class ParallelBlock(HandWrittenVit):
    """Runs attention and MLP side by side."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        attended = self.scaled(self.attended(self.normed(x, block.norm1), block), block, "ls1")
        return x + attended + self.scaled(self.perceived(self.normed(x, block.norm2), block), block, "ls2")


@mutant("vit-norms-swapped", rejects="VIT-8", origin="layernorm_before and layernorm_after mapped crosswise")
class NormsSwapped(HandWrittenVit):
    """Uses norm2 before the attention and norm1 before the MLP."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        x = x + self.scaled(self.attended(self.normed(x, block.norm2), block), block, "ls1")
        return x + self.scaled(self.perceived(self.normed(x, block.norm1), block), block, "ls2")


@mutant("vit-no-attention-residual", rejects="VIT-8", origin="x = attn(norm1(x))")
class NoAttentionResidual(HandWrittenVit):
    """Replaces the stream by what the attention returns."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        x = self.scaled(self.attended(self.normed(x, block.norm1), block), block, "ls1")
        return x + self.scaled(self.perceived(self.normed(x, block.norm2), block), block, "ls2")


@mutant("vit-no-mlp-residual", rejects="VIT-8", origin="x = mlp(norm2(x))")
class NoMlpResidual(HandWrittenVit):
    """Replaces the stream by what the MLP returns."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        x = x + self.scaled(self.attended(self.normed(x, block.norm1), block), block, "ls1")
        return self.scaled(self.perceived(self.normed(x, block.norm2), block), block, "ls2")


@mutant("vit-residual-from-the-start", rejects="VIT-8", origin="shortcut = x kept from before the attention")
class ResidualFromTheStart(HandWrittenVit):
    """Adds the MLP's result to the stream as it entered the block."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        attended = x + self.scaled(self.attended(self.normed(x, block.norm1), block), block, "ls1")
        return x + self.scaled(self.perceived(self.normed(attended, block.norm2), block), block, "ls2")


@mutant("vit-attention-unscaled", rejects="VIT-9", origin="qk_scale=None taken for no scale")
class AttentionUnscaled(HandWrittenVit):
    """Compares queries and keys without a scale."""

    def attention(self, config: SelfAttentionConfig) -> HandWrittenSelfAttention:
        return Unscaled(config)


@mutant("vit-qkv-bias-ignored", rejects="VIT-9", origin="the attention's default, qkv_bias=False, left in the block")
class QkvBiasIgnored(HandWrittenVit):
    """Leaves out the biases of query, key and value."""

    def attention(self, config: SelfAttentionConfig) -> HandWrittenSelfAttention:
        return BiasIgnored(config)


@mutant("vit-one-head", rejects="VIT-9", origin="num_heads not handed on to the block")
class OneHead(HandWrittenVit):
    """Attends with a single head of all channels."""

    def attention(self, config: SelfAttentionConfig) -> HandWrittenSelfAttention:
        return super().attention(replace(config, num_heads=1))


@mutant("vit-class-token-attends-alone", rejects="VIT-9", origin="class attention of CaiT in every block")
class ClassTokenAttendsAlone(HandWrittenVit):
    """Lets only the class token receive what the attention reads."""

    def attended(self, x: Tokens, block: Block) -> Tokens:
        attended = super().attended(x, block)
        return torch.cat((attended[:, :1], 0 * attended[:, 1:]), 1)


@mutant("vit-shared-block", rejects="VIT-10", origin="[Block()] * depth")
class SharedBlock(HandWrittenVit):
    """Uses the last block's parameters in all blocks."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        return super().through(x, self.stack[-1], index)


@mutant("vit-blocks-reversed", rejects="VIT-10", origin="layers popped from the end of a list")
class BlocksReversed(HandWrittenVit):
    """Runs the last block first."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        return super().through(x, self.stack[-1 - index], index)


@mutant("vit-last-block-skipped", rejects="VIT-10", origin="hidden_states[-2], as LLaVA takes them")
class LastBlockSkipped(HandWrittenVit):
    """Leaves out the last of several blocks."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        return x if 0 < index == self.config.depth - 1 else super().through(x, block, index)


@mutant("vit-blocks-sorted-as-text", rejects="VIT-10", origin="sorted(state_dict) puts blocks.10 before blocks.2")
class BlocksTwoAndOneSwapped(HandWrittenVit):
    """Runs the second and the third block in the wrong order."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        swapped = {1: 2, 2: 1}.get(index, index)
        return super().through(x, self.stack[swapped if swapped < len(self.stack) else index], index)


@mutant("vit-gelu-tanh", rejects="VIT-11", origin="approximate='tanh', the default of JAX and of GPT-2")
class GeluTanh(HandWrittenVit):
    """Approximates GELU by tanh."""

    def bent(self, hidden: Tokens) -> Tokens:
        return F.gelu(hidden, approximate="tanh")


@mutant("vit-quick-gelu", rejects="VIT-11", origin="CLIP: x * sigmoid(1.702 x)")
class QuickGelu(HandWrittenVit):
    """Approximates GELU by a sigmoid."""

    def bent(self, hidden: Tokens) -> Tokens:
        return hidden * (1.702 * hidden).sigmoid()


@mutant("vit-relu", rejects="VIT-11", origin="the feed-forward network of DETR")
class Relu(HandWrittenVit):
    """Bends by ReLU."""

    def bent(self, hidden: Tokens) -> Tokens:
        return hidden.relu()


@mutant("vit-gelu-twice", rejects="VIT-11", origin="activation after every layer of an MLP")
class GeluTwice(HandWrittenVit):
    """Applies GELU after the second layer, too."""

    def perceived(self, x: Tokens, block: Block) -> Tokens:
        return self.bent(super().perceived(x, block))


@mutant("vit-ratio-of-four", rejects="VIT-12", origin="4 * dim written out")
class RatioOfFour(HandWrittenVit):
    """Makes the MLP four times as wide as a token, whatever the ratio."""

    def hidden(self) -> int:
        return 4 * self.config.embed_dim


@mutant("vit-ratio-rounded-up", rejects="VIT-12", origin="make_divisible, or math.ceil")
class RatioRoundedUp(HandWrittenVit):
    """Rounds a fraction of a channel up."""

    def hidden(self) -> int:
        return math.ceil(self.config.embed_dim * self.config.mlp_ratio)


@mutant("vit-layer-scale-skipped", rejects="VIT-13", origin="init_values=None, gamma loaded and not used")
class LayerScaleSkipped(HandWrittenVit):
    """Does not scale what the sublayers return."""

    def scaled(self, added: Tokens, block: Block, name: str) -> Tokens:
        return added


@mutant("vit-layer-scale-on-stream", rejects="VIT-13", origin="gamma * (x + f(x))")
class LayerScaleOnStream(HandWrittenVit):
    """Scales the stream along with what is added."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        x = self.scaled(x + self.attended(self.normed(x, block.norm1), block), block, "ls1")
        return self.scaled(x + self.perceived(self.normed(x, block.norm2), block), block, "ls2")


@mutant("vit-layer-scale-before-sublayer", rejects="VIT-13", origin="f(gamma * norm(x))")
class LayerScaleBeforeSublayer(HandWrittenVit):
    """Scales what a sublayer reads."""

    def through(self, x: Tokens, block: Block, index: int) -> Tokens:
        x = x + self.attended(self.scaled(self.normed(x, block.norm1), block, "ls1"), block)
        return x + self.perceived(self.scaled(self.normed(x, block.norm2), block, "ls2"), block)


@mutant("vit-one-layer-scale", rejects="VIT-13", origin="one gamma a block")
class OneLayerScale(HandWrittenVit):
    """Scales both sublayers by ls1."""

    def scaled(self, added: Tokens, block: Block, name: str) -> Tokens:
        return super().scaled(added, block, "ls1")
