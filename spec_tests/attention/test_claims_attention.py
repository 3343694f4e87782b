"""Claims 1 to 7 of spec chapter 10: what attention is, what its masks are, how self- becomes cross-attention."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from detr_reference.attention.config import CrossAttentionConfig, MultiheadAttentionConfig, SelfAttentionConfig
from detr_reference.attention.cross_attention import CrossAttention
from detr_reference.attention.multihead_attention import MultiheadAttention
from detr_reference.attention.self_attention import SelfAttention
from helpers.tiny.claims_models import EMBED as LANES
from helpers.tiny.claims_models import deformable_attention, memory, perturbed

EMBED, HEADS, BATCH, QUERIES, KEYS = 6, 2, 3, 5, 7


def attention(**dropouts: float) -> MultiheadAttention:
    return perturbed(MultiheadAttention(MultiheadAttentionConfig(EMBED, HEADS, **dropouts)))


def bare_attention(**dropouts: float) -> MultiheadAttention:
    """All projections the identity, all biases zero: nothing is left but softmax(QK^T / sqrt(d)) V."""
    module = attention(**dropouts)
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.eye(EMBED).repeat(3, 1))
        module.out_proj.weight.copy_(torch.eye(EMBED))
        module.in_proj_bias.zero_()
        module.out_proj.bias.zero_()
    return module


def torch_attention(module: MultiheadAttention) -> nn.MultiheadAttention:
    """torch's own module with the same parameters, which go by the same names."""
    wrapped = nn.MultiheadAttention(EMBED, HEADS, batch_first=True, dtype=torch.float64).eval()
    wrapped.load_state_dict(module.state_dict())
    return wrapped


def numbers(length: int, batch: int = BATCH) -> Tensor:
    return torch.randn(batch, length, EMBED, dtype=torch.float64)


def padding() -> Tensor:
    """(BATCH, KEYS), True = padding, another number of keys in each image."""
    return torch.arange(KEYS) >= torch.tensor([KEYS, KEYS - 2, KEYS - 4])[:, None]


def largest(difference: Tensor) -> float:
    return difference.abs().max().item()


def by_hand(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax(QK^T * scale) V of one head of one image, one query at a time, from exp and sums alone."""
    rows = []
    for q in query:
        weights = [math.exp(sum(a * b for a, b in zip(q, k, strict=True)) * scale) for k in key.tolist()]
        rows.append(sum(w * v for w, v in zip(weights, value, strict=True)) / sum(weights))
    return torch.stack(rows)


def heads_by_hand(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    heads = []
    for channels in torch.arange(EMBED).chunk(HEADS):
        parts = (tensor[..., channels] for tensor in (query, key, value))
        heads.append(torch.stack([by_hand(q, k, v, scale) for q, k, v in zip(*parts, strict=True)]))
    return torch.cat(heads, dim=-1)


def test_claim_01_attention_is_the_formula() -> None:
    """Each head is softmax(QK^T / sqrt(d)) V on its own channels, d = channels of a head; sqrt(embed_dim) is wrong."""
    query, key, value = numbers(QUERIES), numbers(KEYS), numbers(KEYS)
    output = bare_attention()(query, key, value, identity=torch.zeros_like(query))
    torch.testing.assert_close(output, heads_by_hand(query, key, value, (EMBED // HEADS) ** -0.5))
    assert largest(output - heads_by_hand(query, key, value, EMBED**-0.5)) > 0.01


def test_claim_02_without_masks_it_is_torchs_module() -> None:
    """With one set of parameters the wrapper gives what nn.MultiheadAttention gives, plus the identity."""
    module, query, key, value = attention(), numbers(QUERIES), numbers(KEYS), numbers(KEYS)
    wrapped, _ = torch_attention(module)(query, key, value)
    torch.testing.assert_close(module(query, key, value) - query, wrapped)
    assert largest(module(query, key, value) - wrapped) > 0.1


def test_claim_03_positions_belong_to_query_and_key_alone() -> None:
    """Equal to torch's module on (query + pos, key + pos, value); not with a position in the value or the identity."""
    module, query, key, value = attention(), numbers(QUERIES), numbers(KEYS), numbers(KEYS)
    query_pos, key_pos = numbers(QUERIES), numbers(KEYS)
    output = module(query, key, value, query_pos=query_pos, key_pos=key_pos)
    wrapped = torch_attention(module)
    torch.testing.assert_close(output, query + wrapped(query + query_pos, key + key_pos, value)[0])
    in_value = query + wrapped(query + query_pos, key + key_pos, value + key_pos)[0]
    in_identity = query + query_pos + wrapped(query + query_pos, key + key_pos, value)[0]
    nowhere = query + wrapped(query, key, value)[0]
    assert min(largest(output - wrong) for wrong in (in_value, in_identity, nowhere)) > 0.1


def test_claim_03_the_defaults_are_taken_before_positions_are_added() -> None:
    """In self-attention, too, the value that defaults to the query is the query without its position."""
    module, query, query_pos = attention(), numbers(QUERIES), numbers(QUERIES)
    placed = query + query_pos
    torch.testing.assert_close(
        module(query, query_pos=query_pos), query + torch_attention(module)(placed, placed, query)[0]
    )


def dropped(**dropouts: float) -> Tensor:
    """(query, head, channel): the output of many queries that see a single key whose value is all ones."""
    module = bare_attention(**dropouts).train()
    query, key = torch.zeros(1, 4000, EMBED, dtype=torch.float64), torch.ones(1, 1, EMBED, dtype=torch.float64)
    return module(query, key).unflatten(-1, (HEADS, -1))[0]


def test_claim_04_one_dropout_is_on_weights_and_one_on_outputs() -> None:
    """Dropping a weight silences whole heads, dropping outputs single channels, each rescaled by 1 / (1 - p)."""
    on_weights, on_outputs = dropped(attn_drop=0.5), dropped(proj_drop=0.5)
    for output in (on_weights, on_outputs):
        assert set(output.unique().tolist()) == {0.0, 2.0}
    assert (on_weights == on_weights[..., :1]).all()
    assert (on_outputs != on_outputs[..., :1]).any()


def test_claim_04_two_dropouts_are_not_one() -> None:
    """Both together give the values of a single dropout of outputs with p = 3/4, as often, but not the pattern."""
    both, single = dropped(attn_drop=0.5, proj_drop=0.5), dropped(proj_drop=0.75)
    for output in (both, single):
        assert set(output.unique().tolist()) == {0.0, 4.0}
        assert abs((output > 0).double().mean().item() - 1 / 4) < 0.03
    heads_alive = [(output > 0).any(-1).double().mean().item() for output in (both, single)]
    assert abs(heads_alive[0] - 1 / 2 * (1 - (1 / 2) ** 3)) < 0.03  # 0.44: a dropped weight takes its whole head along
    assert abs(heads_alive[1] - (1 - (3 / 4) ** 3)) < 0.03  # 0.58: three channels, each by itself


@pytest.mark.usefixtures("unchecked_shapes")
def test_claim_05_the_padding_mask_has_a_column_for_each_key() -> None:
    """With Lq != Lk only (batch, key) is a mask; torch says the same."""
    module, query, key = attention(), numbers(QUERIES), numbers(KEYS)
    wrapped = torch_attention(module)
    mask = padding()
    torch.testing.assert_close(
        module(query, key, key_padding_mask=mask) - query, wrapped(query, key, key, key_padding_mask=mask)[0]
    )
    of_the_queries = torch.zeros(BATCH, QUERIES, dtype=torch.bool)
    with pytest.raises(ValueError, match="key_padding_mask"):
        module(query, key, key_padding_mask=of_the_queries)
    with pytest.raises((RuntimeError, AssertionError)):
        wrapped(query, key, key, key_padding_mask=of_the_queries)


def test_claim_05_in_self_attention_it_still_masks_keys() -> None:
    """Where both lengths agree by nature: a padded token is not seen by others, but does get an output."""
    module, tokens = attention(), numbers(KEYS)
    mask = padding()
    output = module(tokens, key_padding_mask=mask)
    other = torch.where(mask[..., None], numbers(KEYS), tokens)
    assert torch.equal(output[~mask], module(other, key_padding_mask=mask)[~mask])
    assert largest((module(other, key_padding_mask=mask) - output)[mask]) > 0.1
    assert largest((module(tokens) - output)[1:]) > 0.01


def test_claim_06_a_mask_for_each_image_and_head_replaces_the_padding_mask() -> None:
    """key_padding_mask repeated over heads and queries: attn_mask (batch * heads, query, key)."""
    module, query, key = attention(), numbers(QUERIES), numbers(KEYS)
    expected = module(query, key, key_padding_mask=padding())
    repeated = padding()[:, None, None].expand(BATCH, HEADS, QUERIES, KEYS).flatten(0, 1)
    torch.testing.assert_close(module(query, key, attn_mask=repeated), expected)
    torch.testing.assert_close(query + torch_attention(module)(query, key, key, attn_mask=repeated)[0], expected)
    heads_first = padding().repeat(HEADS, 1)[:, None].expand(-1, QUERIES, -1)  # the wrong order of batch and heads
    assert largest(module(query, key, attn_mask=heads_first) - expected) > 0.01


def test_claim_06_a_mask_for_all_images_replaces_it_if_all_are_padded_alike() -> None:
    """attn_mask (query, key) cannot tell images apart."""
    module, query, key = attention(), numbers(QUERIES), numbers(KEYS)
    alike = padding()[1:2].expand(BATCH, KEYS)
    torch.testing.assert_close(
        module(query, key, attn_mask=alike[0].expand(QUERIES, KEYS)), module(query, key, key_padding_mask=alike)
    )
    expected = module(query, key, key_padding_mask=padding())
    for image in range(BATCH):
        assert largest(module(query, key, attn_mask=padding()[image].expand(QUERIES, KEYS)) - expected) > 0.01


def test_claim_06_deformable_attention_has_no_attention_mask() -> None:
    """It compares no query with a key, so that there is nothing to forbid."""
    maps = memory()
    query = torch.randn(2, QUERIES, LANES, dtype=torch.float64)
    reference_points = torch.rand(2, QUERIES, 2, 2, dtype=torch.float64)
    mask = torch.zeros(QUERIES, maps.value.shape[1], dtype=torch.bool)
    with pytest.raises(TypeError, match="attn_mask"):
        deformable_attention()(query, reference_points=reference_points, attn_mask=mask, **maps._asdict())


def test_claim_06_masked_weight_is_shared_out_or_lost() -> None:
    """Values of one: attention shares the weight of masked keys out and gives one; deformable attention loses it."""
    ones = torch.ones(2, KEYS, EMBED, dtype=torch.float64)
    nothing = torch.zeros(2, QUERIES, EMBED, dtype=torch.float64)
    averaged = bare_attention()(
        numbers(QUERIES, 2), numbers(KEYS, 2), ones, identity=nothing, key_padding_mask=padding()[1:]
    )
    torch.testing.assert_close(averaged, torch.ones_like(averaged))

    module, maps = perturbed(deformable_attention()), memory()
    with torch.no_grad():
        module.value_proj.weight.zero_()
        module.value_proj.bias.fill_(1)
        module.output_proj.weight.copy_(torch.eye(LANES))
        module.output_proj.bias.zero_()
    query = torch.randn(2, QUERIES, LANES, dtype=torch.float64)
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.2]).double().expand(2, QUERIES, 2, 4)  # in the middle: nothing falls outside
    arguments = {"identity": torch.zeros_like(query), "reference_points": boxes, **maps._asdict()}
    every_other = (torch.arange(maps.value.shape[1]) % 2 == 0).expand(2, -1)
    torch.testing.assert_close(module(query, **arguments), torch.ones_like(query))
    assert module(query, key_padding_mask=every_other, **arguments).max() < 0.95


def self_and_cross() -> tuple[SelfAttention, CrossAttention]:
    """A self-attention, and the cross-attention whose q, k and v are the thirds of its qkv."""
    whole = perturbed(SelfAttention(SelfAttentionConfig(EMBED, HEADS, qkv_bias=True)))
    split = CrossAttention(CrossAttentionConfig(EMBED, HEADS, qkv_bias=True)).double().eval()
    weights, biases = whole.qkv.weight.chunk(3), whole.qkv.bias.chunk(3)
    state = {f"proj.{name}": tensor for name, tensor in whole.proj.state_dict().items()}
    for name, weight, bias in zip("qkv", weights, biases, strict=True):
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    split.load_state_dict(state)
    return whole, split


def test_claim_07_it_is_qkv_that_is_split() -> None:
    """Thirds of qkv, and proj as it was: on one sequence the cross-attention is the self-attention."""
    whole, split = self_and_cross()
    tokens = numbers(KEYS)
    torch.testing.assert_close(split(tokens, tokens, tokens), whole(tokens))
    with torch.no_grad():  # in another order it is something else
        split.q.weight.copy_(whole.qkv.weight.chunk(3)[1])
    assert largest(split(tokens, tokens, tokens) - whole(tokens)) > 0.01


def test_claim_07_proj_cannot_be_split() -> None:
    """proj is one (C, C) matrix behind the heads: its thirds have C/3 rows and fit none of the three layers."""
    whole, split = self_and_cross()
    assert whole.proj.weight.shape == split.proj.weight.shape == (EMBED, EMBED)
    thirds = {f"{name}.weight": third for name, third in zip("qkv", whole.proj.weight.chunk(3), strict=True)}
    with pytest.raises(RuntimeError, match="size mismatch"):
        split.load_state_dict(split.state_dict() | thirds)
