"""Right transformer layers, written differently."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.transformer.mutants.layers import Call, HandWrittenLayer, Mask, Padding, Streams, Tokens


class TorchAttention(HandWrittenLayer):
    """torch's own function for the attention."""

    def attention(self, index: int, query: Tokens, key: Tokens, value: Tokens, mask: Mask, padding: Padding) -> Tokens:
        own = self.own_attention(index)
        if padding is not None:
            key, value = (torch.where(padding[..., None], 0, tokens) for tokens in (key, value))
        attended, _ = F.multi_head_attention_forward(
            query.transpose(0, 1),
            key.transpose(0, 1),
            value.transpose(0, 1),
            self.config.embed_dim,
            self.config.num_heads,
            own.in_proj_weight,
            own.in_proj_bias,
            None,
            None,
            False,
            self.config.attn_drop,
            own.out_proj.weight,
            own.out_proj.bias,
            training=self.training,
            key_padding_mask=padding,
            need_weights=False,
            attn_mask=mask,
        )
        return self.output_dropout(attended.transpose(0, 1))


@twin("encoder-layer-of-torch", operation="encoder_layer", origin="nn.MultiheadAttention inside, as in DETR")
class EncoderLayerOfTorch(TorchAttention):
    """Calls torch's attention."""


@twin("decoder-layer-of-torch", operation="decoder_layer", origin="nn.MultiheadAttention inside, as in DETR")
class DecoderLayerOfTorch(TorchAttention):
    """Calls torch's attention."""


@twin(
    "layer-norm-written-out",
    operation="encoder_layer",
    origin="Triton layer norms, which keep their moments in a wider dtype",
)
class NormWrittenOut(HandWrittenLayer):
    """Writes the norm out, in float64."""

    def norm(self, index: int, x: Tokens) -> Tokens:
        wide, (weight, bias) = x.double(), self.weight_and_bias(index)
        mean = wide.mean(-1, keepdim=True)
        variance = (wide - mean).square().mean(-1, keepdim=True)
        return ((wide - mean) / (variance + self.epsilon()).sqrt() * weight + bias).to(x.dtype)


@twin("layer-stream-in-float32", operation="decoder_layer", origin="Megatron's fp32_residual_connection")
class StreamInFloat32(HandWrittenLayer):
    """Keeps the stream in float32 between sublayers, which see it rounded to the claimed dtype."""

    def begun(self, call: Call) -> Call:
        self.narrow = call.query.dtype
        call.query = call.query.to(torch.promote_types(self.narrow, torch.float32))
        return call

    def sublayer(self, name: str, index: int, at: Streams, call: Call) -> Streams:
        return super().sublayer(name, index, Streams(at.stream, at.seen.to(self.narrow)), call)

    def norm(self, index: int, x: Tokens) -> Tokens:
        weight, bias = self.weight_and_bias(index)
        return F.layer_norm(x, x.shape[-1:], weight.to(x.dtype), bias.to(x.dtype), self.epsilon())

    def ended(self, stream: Tokens, call: Call) -> Tokens:
        return stream.to(self.narrow)


@twin("layer-length-first", operation="decoder_layer", origin="DETR: (length, batch, channel) throughout")
class LengthFirst(TorchAttention):
    """Runs norms and networks on tokens laid out with the length first."""

    def norm(self, index: int, x: Tokens) -> Tokens:
        return super().norm(index, x.transpose(0, 1).contiguous()).transpose(0, 1)

    def network(self, index: int, seen: Tokens) -> Tokens:
        return super().network(index, seen.transpose(0, 1).contiguous()).transpose(0, 1)


@twin("layer-fixed-paths", operation="encoder_layer", origin="forward_post and forward_pre of DETR")
class FixedPaths(HandWrittenLayer):
    """Has a path of its own for pre-norm: a sum of sublayers, each behind its norm if it has one."""

    def ended(self, stream: Tokens, call: Call) -> Tokens:
        if not self.is_pre_norm():
            return stream
        total = call.query
        for norm, name, index in self.pairs():
            seen = total if norm is None else self.norm(norm, total)
            total = total + self.sublayer(name, index, Streams(torch.zeros_like(total), seen), call).stream
        return total

    def operations(self) -> Iterator[tuple[str, int]]:
        """None on the usual path of a pre-norm layer."""
        return iter(()) if self.is_pre_norm() else super().operations()

    def pairs(self) -> Iterator[tuple[int | None, str, int]]:
        """Each sublayer with the number of the norm before it, if there is one."""
        norm: int | None = None
        for name, index in super().operations():
            if name == "norm":
                norm = index
            else:
                yield norm, name, index
                norm = None
