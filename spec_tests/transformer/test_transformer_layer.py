"""The transformer layer against torch's own layers and against DETR's two forward passes, then each rule alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detr_reference.transformer.layer import build_decoder_layer, build_encoder_layer
from helpers.tiny.transformer_layer_cases import (
    CONFIG,
    POST,
    PRE,
    config,
    decoder_call,
    encoder_call,
    perturbed,
    without_cross,
)


def torch_state(layer: nn.Module) -> dict[str, Tensor]:
    """The layer's parameters under the names of torch's own layer."""
    names = {"ffns.0.layers.0.0": "linear1", "ffns.0.layers.1": "linear2", "attentions.0": "self_attn"}
    names |= {"attentions.1": "multihead_attn"} | {f"norms.{i}": f"norm{i + 1}" for i in range(3)}
    state = {}
    for name, tensor in layer.state_dict().items():
        ours = next(start for start in names if name.startswith(f"{start}."))
        state[names[ours] + name.removeprefix(ours)] = tensor
    return state


@pytest.mark.parametrize("order", [POST, PRE])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer_equals_torch(order: tuple[str, ...], activation: str) -> None:
    layer = perturbed(build_encoder_layer(config(*without_cross(order), activation=activation)))
    theirs = nn.TransformerEncoderLayer(
        12, 3, 20, activation=activation, batch_first=True, norm_first=order is PRE, dtype=torch.float64
    ).eval()
    theirs.load_state_dict(torch_state(layer))
    call = encoder_call()
    with torch.enable_grad():  # without gradients torch would take its fused path, another computation
        expected = theirs(call["query"], call["attn_mask"], call["query_key_padding_mask"])
    torch.testing.assert_close(layer(**{**call, "query_pos": None}), expected)


@pytest.mark.parametrize("order", [POST, PRE])
def test_decoder_layer_equals_torch(order: tuple[str, ...]) -> None:
    layer = perturbed(build_decoder_layer(config(*order)))
    theirs = nn.TransformerDecoderLayer(
        12, 3, 20, batch_first=True, norm_first=order is PRE, dtype=torch.float64
    ).eval()
    theirs.load_state_dict(torch_state(layer))
    call = decoder_call()
    expected = theirs(
        call["query"],
        call["key"],
        call["attn_mask"],
        call["cross_attn_mask"],
        call["query_key_padding_mask"],
        call["key_padding_mask"],
    )
    torch.testing.assert_close(layer(**{**call, "query_pos": None, "key_pos": None}), expected)


class Plain:
    """The bare sublayers of a layer, by torch's functions: attention with its positions added before the call."""

    def __init__(self, layer: nn.Module, call: dict[str, Tensor]) -> None:
        self.layer, self.call = layer, call

    def norm(self, index: int, x: Tensor) -> Tensor:
        norm = self.layer.norms[index]
        return nn.functional.layer_norm(x, (12,), norm.weight, norm.bias, 1e-5)

    def ffn(self, index: int, x: Tensor) -> Tensor:
        first, last = self.layer.ffns[index].layers[0][0], self.layer.ffns[index].layers[1]
        return last(first(x).relu())

    def attend(self, index: int, query: Tensor, key: Tensor, value: Tensor, mask: str, padding: str) -> Tensor:
        own = self.layer.attentions[index]
        attention = nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64)
        attention.load_state_dict(own.state_dict())
        return attention(
            query,
            key,
            value,
            key_padding_mask=self.call[padding],
            attn_mask=self.call[mask],
            need_weights=False,
        )[0]

    def each_other(self, index: int, x: Tensor) -> Tensor:
        placed = x + self.call["query_pos"]
        return self.attend(index, placed, placed, x, "attn_mask", "query_key_padding_mask")

    def cross(self, index: int, x: Tensor) -> Tensor:
        key = self.call["key"]
        placed = x + self.call["query_pos"]
        return self.attend(index, placed, key + self.call["key_pos"], key, "cross_attn_mask", "key_padding_mask")


def test_equals_the_post_norm_layer_of_detr() -> None:
    """tgt + sublayer(tgt), then the norm, as in forward_post; positions and both kinds of masks given."""
    layer, call = perturbed(build_decoder_layer(config(*POST))), decoder_call()
    plain, x = Plain(layer, call), call["query"]
    x = plain.norm(0, x + plain.each_other(0, x))
    x = plain.norm(1, x + plain.cross(1, x))
    x = plain.norm(2, x + plain.ffn(0, x))
    torch.testing.assert_close(layer(**call), x)


def test_equals_the_pre_norm_layer_of_detr() -> None:
    """tgt + sublayer(norm(tgt)), as in forward_pre."""
    layer, call = perturbed(build_decoder_layer(config(*PRE))), decoder_call()
    plain, x = Plain(layer, call), call["query"]
    x = x + plain.each_other(0, plain.norm(0, x))
    x = x + plain.cross(1, plain.norm(1, x))
    x = x + plain.ffn(0, plain.norm(2, x))
    torch.testing.assert_close(layer(**call), x)


def test_any_order() -> None:
    """Feed-forward network first, two attentions of a kind, sublayers with and without a norm."""
    order = ("ffn", "cross_attn", "norm", "self_attn", "self_attn", "norm", "ffn", "cross_attn")
    layer, call = perturbed(build_decoder_layer(config(*order))), decoder_call()
    plain, x = Plain(layer, call), call["query"]
    x = x + plain.ffn(0, x)
    x = plain.norm(0, x + plain.cross(0, x))
    x = x + plain.each_other(1, x)
    x = plain.norm(1, x + plain.each_other(2, x))
    x = x + plain.ffn(1, x)
    x = x + plain.cross(3, x)
    torch.testing.assert_close(layer(**call), x)


def test_pre_norm_keeps_what_a_feed_forward_network_added() -> None:
    """The identity moves on after the feed-forward network as well; a sublayer without a norm sees the stream."""
    order = ("norm", "ffn", "norm", "self_attn", "cross_attn", "norm", "ffn")
    layer, call = perturbed(build_decoder_layer(config(*order))), decoder_call()
    plain, x = Plain(layer, call), call["query"]
    x = x + plain.ffn(0, plain.norm(0, x))
    x = x + plain.each_other(0, plain.norm(1, x))
    x = x + plain.cross(1, x)
    x = x + plain.ffn(1, plain.norm(2, x))
    torch.testing.assert_close(layer(**call), x)


def test_pre_norm_stream_runs_through() -> None:
    """With sublayers of zero the pre-norm layer is the identity; the post-norm one is its norms."""
    for order in (PRE, POST):
        layer, call = perturbed(build_decoder_layer(config(*order))), decoder_call()
        with torch.no_grad():
            for name, parameter in layer.named_parameters():
                if "out_proj" in name or "ffns.0.layers.1" in name:
                    parameter.zero_()
        expected = call["query"]
        if order is POST:
            for norm in layer.norms:
                expected = norm(expected)
        torch.testing.assert_close(layer(**call), expected)


def test_key_positions_by_default() -> None:
    """Without key_pos the key gets query_pos if there are as many keys as queries, and nothing otherwise."""
    layer, call = perturbed(build_decoder_layer(config("cross_attn"))), decoder_call()
    query, query_pos, key = call["query"], call["query_pos"], call["key"]
    nothing = layer(query, key, query_pos, torch.zeros_like(key))
    assert torch.equal(layer(query, key, query_pos), nothing)
    as_many = key[:, :5]
    assert torch.equal(layer(query, as_many, query_pos), layer(query, as_many, query_pos, query_pos))
    assert not torch.equal(layer(query, as_many, query_pos), layer(query, as_many, query_pos, torch.zeros_like(query)))


def test_padded_queries_are_computed_like_others() -> None:
    """Only what they hold is hidden from the others: their own rows go on."""
    layer, call = perturbed(build_encoder_layer(config(*without_cross(POST)))), encoder_call()
    del call["attn_mask"]
    padded = call["query_key_padding_mask"]
    changed = layer(**{**call, "query": torch.where(padded[..., None], 9.0, call["query"])})
    output = layer(**call)
    assert torch.equal(changed[~padded], output[~padded])
    assert (changed[padded] - output[padded]).abs().amax(-1).min() > 0.01
    assert output[padded].abs().amin() > 0


def test_norm_epsilon_counts_where_the_variance_is_small() -> None:
    """On a stream of variance v the norm divides by sqrt(v + eps)."""
    layer = build_encoder_layer(config("ffn", "norm")).double()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("ffns"):
                parameter.zero_()
    x = torch.tensor([1e-3, -1e-3], dtype=torch.float64).repeat(6)[None, None]
    torch.testing.assert_close(layer(x), x / (1e-6 + 1e-5) ** 0.5)


def test_every_parameter_has_a_gradient() -> None:
    for order in (POST, PRE):
        layer, call = perturbed(build_decoder_layer(config(*order))), decoder_call()
        layer(**call).square().sum().backward()
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 1e-4, name


@pytest.mark.parametrize("order", [POST, PRE])
def test_gradcheck(order: tuple[str, ...]) -> None:
    layer, call = perturbed(build_decoder_layer(config(*order, activation="gelu"))), decoder_call()
    names = ("query", "key", "query_pos", "key_pos")

    def forward(*tensors: Tensor) -> Tensor:
        return layer(**{**call, **dict(zip(names, tensors, strict=True))})

    assert torch.autograd.gradcheck(forward, tuple(call[name].requires_grad_() for name in names), fast_mode=True)


def test_rates_reach_their_sublayers() -> None:
    layer = build_decoder_layer(config(*POST, attn_drop=0.1, proj_drop=0.2, ffn_drop=0.3))
    for attention in layer.attentions:
        assert (attention.config.attn_drop, attention.config.proj_drop) == (0.1, 0.2)
    assert layer.ffns[0].config.ffn_drop == 0.3
    assert CONFIG.attention.attn_drop == 0.0


def test_build_copies_the_parameters_it_is_given() -> None:
    source = perturbed(build_decoder_layer(config(*POST)))
    state = source.state_dict()
    built = build_decoder_layer(config(*POST), state).eval()
    call = decoder_call()
    assert torch.equal(built(**call), source(**call))
    assert all(p.data_ptr() != state[name].data_ptr() for name, p in built.named_parameters())
