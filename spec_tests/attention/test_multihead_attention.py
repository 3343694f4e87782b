"""Multi-head attention: an independent computation of all of it, then each of its rules alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from detr_reference.attention.config import MultiheadAttentionConfig
from detr_reference.attention.multihead_attention import MultiheadAttention, build
from helpers.oracles import scalar_attention

CONFIG = MultiheadAttentionConfig(embed_dim=6, num_heads=3)
BATCH, QUERIES, KEYS = 2, 4, 5


def perturbed(config: MultiheadAttentionConfig = CONFIG) -> MultiheadAttention:
    """A float64 module whose every parameter is random."""
    module = build(config).double().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.7)
    return module


def call(queries: int = QUERIES, keys: int = KEYS) -> dict[str, Tensor]:
    lengths = {"query": queries, "key": keys, "value": keys, "identity": queries, "query_pos": queries, "key_pos": keys}
    return {name: torch.randn(BATCH, n, CONFIG.embed_dim, dtype=torch.float64) for name, n in lengths.items()}


def forbidden() -> Tensor:
    """(B * M, Q, K), another slice for each head of each image, key 0 free."""
    mask = torch.rand(BATCH * CONFIG.num_heads, QUERIES, KEYS) < 0.4
    mask[..., 0] = False
    return mask


def padding() -> Tensor:
    return torch.tensor([[False, False, True, False, True], [False, False, False, False, True]])


@pytest.mark.parametrize("masks", ["none", "boolean", "additive", "2-d"])
def test_equals_the_scalar_oracle(masks: str) -> None:
    """Everything at once: projections, heads, scale, positions, both masks, identity."""
    module, arguments = perturbed(), call()
    table = torch.zeros(BATCH, CONFIG.num_heads, QUERIES, KEYS, dtype=torch.float64)
    mask: Tensor | None = None
    if masks == "boolean":
        mask = forbidden()
        table[mask.view(table.shape)] = -math.inf
    elif masks == "additive":
        mask = torch.randn(BATCH * CONFIG.num_heads, QUERIES, KEYS, dtype=torch.float64)
        table += mask.view(table.shape)
    elif masks == "2-d":
        mask = forbidden()[0]
        table[mask.expand(table.shape)] = -math.inf
    if masks != "none":
        table[padding()[:, None, None].expand(table.shape)] = -math.inf
    expected = scalar_attention.forward(
        {name: parameter.detach().numpy() for name, parameter in module.named_parameters()},
        CONFIG.num_heads,
        (arguments["query"] + arguments["query_pos"]).numpy(),
        (arguments["key"] + arguments["key_pos"]).numpy(),
        arguments["value"].numpy(),
        arguments["identity"].numpy(),
        lambda b, m, q, k: float(table[b, m, q, k]),
    )
    output = module(**arguments, attn_mask=mask, key_padding_mask=None if masks == "none" else padding())
    torch.testing.assert_close(output, torch.from_numpy(expected))


def test_one_head_is_the_textbook_formula() -> None:
    """softmax(Q K^T / sqrt(C)) V, with identity projections."""
    config = MultiheadAttentionConfig(embed_dim=6, num_heads=1)
    eye, none = torch.eye(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    module = build(
        config,
        {
            "in_proj_weight": torch.cat((eye, eye, eye)),
            "in_proj_bias": torch.cat((none, none, none)),
            "out_proj.weight": eye,
            "out_proj.bias": none,
        },
    )
    a = call()
    scores = torch.einsum("bqc,bkc->bqk", a["query"], a["key"]) / math.sqrt(6)
    expected = torch.einsum("bqk,bkc->bqc", scores.exp() / scores.exp().sum(-1, keepdim=True), a["value"])
    output = module(a["query"], a["key"], a["value"], torch.zeros_like(a["query"]))
    torch.testing.assert_close(output, expected)


def test_equal_keys_give_the_mean_of_the_values() -> None:
    """Equal scores weigh equally, whatever the query; attention to constant values is that constant."""
    module, a = perturbed(), call()
    same_key = a["key"][:, :1].expand_as(a["key"])
    mean = a["value"].mean(1, keepdim=True).expand_as(a["value"])
    zero = torch.zeros_like(a["query"])
    output = module(a["query"], same_key, a["value"], zero)
    torch.testing.assert_close(output, module(a["query"], a["key"], mean, zero))
    torch.testing.assert_close(output, output[:, :1].expand_as(output))


def test_defaults_are_taken_before_positions() -> None:
    """Self-attention in one argument is the call with everything written out."""
    module, a = perturbed(), call(QUERIES, QUERIES)
    query, position = a["query"], a["query_pos"]
    short = module(query, query_pos=position)
    torch.testing.assert_close(short, module(query, query, query, query, position, position), rtol=0, atol=0)
    assert not torch.equal(short, module(query, query_pos=position, key_pos=torch.zeros_like(position)))


def test_the_key_gets_the_queries_position_if_only_the_shapes_agree() -> None:
    """The hazard: with as many keys as queries a cross-attention without key_pos uses query_pos for its keys."""
    module, a = perturbed(), call(QUERIES, QUERIES)
    cross = module(a["query"], a["key"], query_pos=a["query_pos"])
    torch.testing.assert_close(cross, module(a["query"], a["key"], query_pos=a["query_pos"], key_pos=a["query_pos"]))
    longer = call()
    nothing = module(longer["query"], longer["key"], query_pos=longer["query_pos"])
    zeros = torch.zeros_like(longer["key"])
    torch.testing.assert_close(
        nothing, module(longer["query"], longer["key"], query_pos=longer["query_pos"], key_pos=zeros)
    )


def test_masking_a_key_is_leaving_it_out() -> None:
    """Padding, a mask and a shorter call are the same thing; so are a boolean mask and an additive one of -inf."""
    module, a = perturbed(), call()
    shorter = {name: t[:, :3] if name in ("key", "value", "key_pos") else t for name, t in a.items()}
    expected = module(**shorter)
    padded = torch.arange(KEYS).expand(BATCH, KEYS) >= 3
    mask = padded[:1].expand(QUERIES, KEYS)
    additive = torch.zeros(QUERIES, KEYS, dtype=torch.float64).masked_fill(mask, -math.inf)
    for masks in ({"key_padding_mask": padded}, {"attn_mask": mask}, {"attn_mask": additive}):
        torch.testing.assert_close(module(**a, **masks), expected)


def test_a_query_that_may_attend_to_nothing() -> None:
    """Its output is identity + out_proj.bias; every gradient is finite, its own is that of the identity alone."""
    module, a = perturbed(), call()
    mask = forbidden().view(BATCH, CONFIG.num_heads, QUERIES, KEYS)
    mask[1, :, 2] = True
    leaves = {name: tensor.requires_grad_() for name, tensor in a.items()}
    output = module(**a, attn_mask=mask.flatten(0, 1))
    torch.testing.assert_close(output[1, 2], a["identity"][1, 2] + module.out_proj.bias)
    every = {**leaves, **dict(module.named_parameters())}
    gradients = dict(zip(every, torch.autograd.grad(output.square().sum(), list(every.values())), strict=True))
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert not gradients["query"][1, 2].any()
    assert not gradients["query_pos"][1, 2].any()
    assert gradients["query"][1, 1].any()


def test_padding_never_shows() -> None:
    """NaN in padded keys, values and positions changes no output and no gradient."""
    module, arguments = perturbed(), call()
    results = []
    for filler in (0.0, torch.nan):
        a = dict(arguments)
        for name in ("key", "value", "key_pos"):
            a[name] = a[name].masked_fill(padding()[..., None], filler)
        a["query"] = a["query"].clone().requires_grad_()
        output = module(**a, key_padding_mask=padding())
        leaves = (a["query"], *module.parameters())
        results.append((output, *torch.autograd.grad(output.square().sum(), leaves)))
    for ordinary, poisoned in zip(*results, strict=True):
        assert torch.equal(ordinary, poisoned)


def test_without_keys_attention_is_zero() -> None:
    module, a = perturbed(), call(keys=0)
    for masks in ({}, {"key_padding_mask": torch.zeros(BATCH, 0, dtype=torch.bool)}):
        torch.testing.assert_close(module(**a, **masks), a["identity"] + module.out_proj.bias)


def test_scores_of_any_size() -> None:
    """exp of the scores overflows float64: the largest takes all."""
    module, a = perturbed(), call()
    output = module(**{**a, "query": a["query"] * 1e6})
    assert output.isfinite().all()


def test_gradients_pass_gradcheck() -> None:
    module, a = perturbed(), call()
    names = list(a)
    mask, padded = forbidden(), padding()

    def function(*tensors: Tensor) -> Tensor:
        return module(**dict(zip(names, tensors, strict=True)), attn_mask=mask, key_padding_mask=padded)

    assert torch.autograd.gradcheck(function, [tensor.requires_grad_() for tensor in a.values()])


def test_agrees_with_torch() -> None:
    """The same parameters in torch's own module, masks included."""
    module, a = perturbed(), call()
    theirs = nn.MultiheadAttention(CONFIG.embed_dim, CONFIG.num_heads, batch_first=True).double().eval()
    theirs.load_state_dict(module.state_dict())
    attended, _ = theirs(
        a["query"] + a["query_pos"],
        a["key"] + a["key_pos"],
        a["value"],
        attn_mask=(mask := forbidden()),
        key_padding_mask=padding(),
    )
    torch.testing.assert_close(
        module(**a, attn_mask=mask, key_padding_mask=padding()), a["identity"] + attended, rtol=1e-9, atol=1e-9
    )
