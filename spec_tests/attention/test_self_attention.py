"""Self-attention with one projection: an independent computation, closed forms, gradients, errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detr_reference.attention.config import SelfAttentionConfig
from detr_reference.attention.self_attention import SelfAttention, build
from helpers.oracles import loop_attention
from helpers.tiny.attention_modules import as_numpy, perturbed

CONFIG = SelfAttentionConfig(embed_dim=12, num_heads=3, qkv_bias=True)


def tokens(length: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, length, 12, dtype=dtype)


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("heads", [1, 3, 4])
def test_equals_the_loop(heads: int, qkv_bias: bool) -> None:
    """Thirds, heads, scale, softmax, joining and projection, in NumPy and one number at a time."""
    module, x = perturbed(SelfAttention(SelfAttentionConfig(12, heads, qkv_bias))), tokens()
    expected = loop_attention.self_attention(x.numpy(), as_numpy(module), heads)
    torch.testing.assert_close(module(x), torch.from_numpy(expected))


def test_equals_torch_multihead_attention() -> None:
    """qkv is torch's in_proj, proj its out_proj."""
    module, x = perturbed(SelfAttention(CONFIG)), tokens()
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64).eval()
    with torch.no_grad():
        for parameter, ours in (
            (theirs.in_proj_weight, module.qkv.weight),
            (theirs.in_proj_bias, module.qkv.bias),
            (theirs.out_proj.weight, module.proj.weight),
            (theirs.out_proj.bias, module.proj.bias),
        ):
            parameter.copy_(ours)
    torch.testing.assert_close(module(x), theirs(x, x, x, need_weights=False)[0])


def test_one_token_is_its_own_value() -> None:
    """The softmax of one logit is one: out = proj(v(x))."""
    module, x = perturbed(SelfAttention(CONFIG)), tokens(1)
    value = x @ module.qkv.weight[24:].T + module.qkv.bias[24:]
    torch.testing.assert_close(module(x), module.proj(value))


def test_logits_have_the_scale_of_a_head() -> None:
    """Two tokens, query and key of one channel a head: weights are sigmoids of q (k0 - k1) / sqrt(D)."""
    module = SelfAttention(SelfAttentionConfig(embed_dim=8, num_heads=2)).double()
    x = torch.zeros(1, 2, 8, dtype=torch.float64)
    x[0, 0, 0], x[0, 1, 1] = 1, 1
    weight = torch.zeros(24, 8, dtype=torch.float64)
    weight[0, 0], weight[8, 0], weight[8, 1] = 3, 2, -1  # head 0, channel 0: q = (3, 0), k = (2, -1)
    weight[16:20, 0] = 1  # head 0: v = 1 for token 0, 0 for token 1
    with torch.no_grad():
        module.qkv.weight.copy_(weight)
        module.proj.weight.copy_(torch.eye(8))
        module.proj.bias.zero_()
    out = module(x)
    expected = 1 / (1 + math.exp(-3 * (2 - -1) / math.sqrt(4)))
    torch.testing.assert_close(out[0, 0, :4], torch.full((4,), expected, dtype=torch.float64))
    torch.testing.assert_close(out[0, 1, :4], torch.full((4,), 0.5, dtype=torch.float64))
    assert torch.equal(out[..., 4:], torch.zeros_like(out[..., 4:]))


def test_permuting_tokens_permutes_the_output() -> None:
    module, x = perturbed(SelfAttention(CONFIG)), tokens(7)
    order = torch.randperm(7)
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order])


def test_the_key_bias_changes_nothing() -> None:
    """It adds the same number to all logits of a query; its gradient is zero."""
    module, x = perturbed(SelfAttention(CONFIG)), tokens()
    before = module(x)
    before.square().sum().backward()
    gradient = module.qkv.bias.grad
    assert gradient[12:24].abs().max() < 1e-12 < 1e-3 < gradient[:12].abs().max()
    with torch.no_grad():
        module.qkv.bias[12:24] += torch.randn(12)
    torch.testing.assert_close(module(x), before)


def test_float16_products_do_not_overflow() -> None:
    """Products of 90000, beyond float16, stand for logits of 45000."""
    module = SelfAttention(SelfAttentionConfig(embed_dim=4, num_heads=1)).half()
    with torch.no_grad():
        module.qkv.weight.copy_(torch.cat((150 * torch.ones(4, 4), 150 * torch.ones(4, 4), torch.eye(4))))
    output = module(torch.eye(4, dtype=torch.float16)[None, :3])
    assert output.isfinite().all()


def test_dropout_of_weights_keeps_heads_whole() -> None:
    """With one token a head is dropped or doubled as a whole, in training only."""
    config = SelfAttentionConfig(12, 3, attn_drop=0.5)
    module = perturbed(SelfAttention(config))
    with torch.no_grad():
        module.proj.weight.copy_(torch.eye(12))
        module.proj.bias.zero_()
    x = torch.randn(200, 1, 12, dtype=torch.float64)
    value = x @ module.qkv.weight[24:].T
    torch.testing.assert_close(module(x), value)
    factor = (module.train()(x) / value).unflatten(-1, (3, 4))
    torch.testing.assert_close(factor, factor.round())
    assert torch.equal(factor.round().unique(), torch.tensor([0.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(factor, factor[..., :1].expand_as(factor))
    assert 0.4 < (factor[..., 0] > 1).double().mean() < 0.6


def test_dropout_of_the_output() -> None:
    module, x = perturbed(SelfAttention(SelfAttentionConfig(12, 3, proj_drop=0.25))), tokens(40)
    kept = module(x)
    dropped = module.train()(x)
    zero = dropped == 0
    assert 0.18 < zero.double().mean() < 0.32
    torch.testing.assert_close(dropped[~zero], kept[~zero] / 0.75)


def test_gradcheck() -> None:
    module, x = perturbed(SelfAttention(CONFIG)), tokens(3).requires_grad_()
    assert torch.autograd.gradcheck(module, (x,), fast_mode=True)


def test_every_parameter_has_a_gradient() -> None:
    module = perturbed(SelfAttention(CONFIG))
    module(tokens()).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.abs().max() > 1e-3, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_build_copies_the_parameters_it_is_given(dtype: torch.dtype) -> None:
    source = perturbed(SelfAttention(CONFIG)).to(dtype)
    state = source.state_dict()
    built = build(CONFIG, state).eval()
    x = tokens(dtype=dtype)
    assert torch.equal(built(x), source(x))
    assert all(p.data_ptr() != state[name].data_ptr() and p.dtype == dtype for name, p in built.named_parameters())


@pytest.mark.parametrize("shape", [(2, 5, 11), (5, 12), (2, 5, 3, 4)])
@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_input_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x must be \(batch, token, 12\), got \(" + ", ".join(map(str, shape))):
        SelfAttention(CONFIG)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"embed_dim": 0}, "embed_dim must be at least 1, got 0"),
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"embed_dim": 10, "num_heads": 3}, "10 / 3 leaves 1 channels over"),
        ({"attn_drop": 1.5}, "attn_drop must lie between 0 and 1, got 1.5"),
        ({"proj_drop": -0.1}, "proj_drop must lie between 0 and 1, got -0.1"),
    ],
)
def test_wrong_configuration_is_named(wrong: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SelfAttentionConfig(**wrong)
