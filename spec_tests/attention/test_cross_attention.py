"""Cross-attention: an independent computation, and what it has to do with self-attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detr_reference.attention.config import CrossAttentionConfig, SelfAttentionConfig
from detr_reference.attention.cross_attention import CrossAttention, build
from detr_reference.attention.self_attention import SelfAttention
from helpers.oracles import loop_attention
from helpers.tiny.attention_modules import as_numpy, perturbed

CONFIG = CrossAttentionConfig(embed_dim=12, num_heads=3, qkv_bias=True)


def arguments(queries: int = 4, keys: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    lengths = (queries, keys, keys)
    query, key, value = (torch.randn(2, length, 12, dtype=torch.float64) for length in lengths)
    return query, key, value


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(4, 7), (7, 4), (1, 3), (3, 1)])
def test_equals_the_loop(queries: int, keys: int, qkv_bias: bool) -> None:
    module = perturbed(CrossAttention(CrossAttentionConfig(12, 3, qkv_bias)))
    query, key, value = arguments(queries, keys)
    expected = loop_attention.cross_attention(query.numpy(), key.numpy(), value.numpy(), as_numpy(module), 3)
    torch.testing.assert_close(module(query, key, value), torch.from_numpy(expected))


def split_qkv(source: SelfAttention) -> CrossAttention:
    """Cross-attention whose three layers are the thirds of qkv; proj stays whole."""
    state = source.state_dict()
    for part in ("weight", "bias"):
        state |= {f"{name}.{part}": third for name, third in zip("qkv", state.pop(f"qkv.{part}").chunk(3), strict=True)}
    return build(CONFIG, state).eval()


def test_the_thirds_of_qkv_are_the_three_layers() -> None:
    """The notes say to split proj; it is qkv that is split."""
    source, x = perturbed(SelfAttention(SelfAttentionConfig(12, 3, True))), arguments()[0]
    torch.testing.assert_close(split_qkv(source)(x, x, x), source(x))


def test_another_order_of_the_thirds_is_another_function() -> None:
    """The equality above holds for this order alone, though all six load."""
    source, x = perturbed(SelfAttention(SelfAttentionConfig(12, 3, True))), arguments()[0]
    cross, expected = split_qkv(source), source(x)
    state = cross.state_dict()
    for order in ("qvk", "kqv", "kvq", "vqk", "vkq"):
        moved = dict(state)
        for name, other in zip("qkv", order, strict=True):
            moved |= {f"{name}.{part}": state[f"{other}.{part}"] for part in ("weight", "bias")}
        assert (build(CONFIG, moved).eval()(x, x, x) - expected).abs().max() > 0.05, order


def test_output_is_affine_in_the_value() -> None:
    module, (query, key, u) = perturbed(CrossAttention(CONFIG)), arguments()
    v = torch.randn_like(u)
    f = [module(query, key, value) for value in (2 * u - v, u, v)]
    torch.testing.assert_close(f[0], 2 * f[1] - f[2])
    assert (f[1] - f[2]).abs().max() > 0.1


def test_a_constant_value_hides_query_and_key() -> None:
    """Weights sum to one: the same value for all keys comes out for every query."""
    module, (query, key, value) = perturbed(CrossAttention(CONFIG)), arguments()
    constant = value[:, :1].expand_as(value)
    torch.testing.assert_close(module(query, key, constant), module.proj(module.v(constant[:, :4])))


def test_gradcheck() -> None:
    module = perturbed(CrossAttention(CONFIG))
    inputs = tuple(tensor.requires_grad_() for tensor in arguments(2, 3))
    assert torch.autograd.gradcheck(module, inputs, fast_mode=True)


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        (((2, 4, 12), (2, 7, 12), (2, 6, 12)), r"value \(2, 6, 12\) must have the shape of key, \(2, 7, 12\)"),
        (((2, 4, 12), (2, 7, 12), (2, 1, 12)), r"value \(2, 1, 12\) must have the shape of key, \(2, 7, 12\)"),
        (((2, 4, 12), (1, 7, 12), (1, 7, 12)), r"key \(1, 7, 12\) and query \(2, 4, 12\) differ in batch"),
        (((2, 4, 11), (2, 7, 12), (2, 7, 12)), r"query must be \(batch, length, 12\), got \(2, 4, 11\)"),
        (((2, 4, 12), (7, 12), (7, 12)), r"key must be \(batch, length, 12\), got \(7, 12\)"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_input_is_named(shapes: tuple[tuple[int, ...], ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        CrossAttention(CONFIG)(*(torch.zeros(shape) for shape in shapes))
