"""The attention of transformers' families in the frame of chapter 4; see `attention_families`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.targets.attention_frame import Padding, Projected, Tokens
from detr_conformance.targets.transformers.attention_families import FAMILIES, source
from detr_reference.attention.config import MultiheadAttentionConfig


def build(family: str, config: MultiheadAttentionConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
    """The family's attention with these parameters; None means as the family's model initialises it."""
    module = ADAPTERS[FAMILIES[family].group](family, config)
    if state_dict is None:
        model = getattr(source(family), FAMILIES[family].model)
        module.apply(model(model.config_class())._init_weights)
    else:
        module.load(state_dict)
    return module


class Adapted(Projected):
    """A family's class, made from the family's own configuration."""

    def __init__(self, family: str, config: MultiheadAttentionConfig) -> None:
        super().__init__(config)
        entry = FAMILIES[family]
        theirs = getattr(source(family), entry.model).config_class()
        self.attention = self.made(getattr(source(family), entry.name), theirs)

    def made(self, kind: Any, theirs: Any) -> nn.Module:
        raise NotImplementedError


class Cross(Adapted):
    """Takes the value, and as the key's position what is added to it."""

    names = ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj")

    def made(self, kind: Any, theirs: Any) -> nn.Module:
        theirs._attn_implementation = "sdpa"
        return kind(theirs, self.config.embed_dim, self.config.num_heads, self.config.attn_drop)

    def attend(
        self, query: Tokens, key: Tokens, value: Tokens, attn_mask: Tensor | None, key_padding_mask: Padding | None
    ) -> Tokens:
        mask = self.one_mask(query, key, attn_mask, key_padding_mask)
        position = None if key is value else key - value
        return self.attention(query, value, attention_mask=mask, encoder_position_embeddings=position)[0]


class Three(Adapted):
    """Takes queries, keys and values."""

    names = ("attention.query", "attention.key", "attention.value", "attention.out_proj")

    def made(self, kind: Any, theirs: Any) -> nn.Module:
        sizes, heads, dropout = self.config.embed_dim, self.config.num_heads, self.config.attn_drop
        if kind.__name__.startswith("OmDetTurbo"):
            return kind(theirs, sizes, heads, dropout)
        theirs.d_model, theirs.attention_dropout = sizes, dropout
        return kind(theirs, heads)

    def attend(
        self, query: Tokens, key: Tokens, value: Tokens, attn_mask: Tensor | None, key_padding_mask: Padding | None
    ) -> Tokens:
        return self.attention(query, key, value, self.one_mask(query, key, attn_mask, key_padding_mask))[0]


class TokensFirst(Adapted):
    """Takes the value, and as the key's position what is added to it, which must be given; the batch is axis 1."""

    names = ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.out_proj")

    def made(self, kind: Any, theirs: Any) -> nn.Module:
        return kind(self.config.embed_dim, self.config.num_heads, self.config.attn_drop)

    def attend(
        self, query: Tokens, key: Tokens, value: Tokens, attn_mask: Tensor | None, key_padding_mask: Padding | None
    ) -> Tokens:
        mask = self.one_mask(query, key, attn_mask, key_padding_mask)
        position = torch.zeros_like(key) if key is value else key - value
        output, _ = self.attention(
            query.transpose(0, 1),
            None if mask is None else mask.flatten(0, 1),
            key_value_states=value.transpose(0, 1),
            key_value_position_embeddings=position.transpose(0, 1),
        )
        return output.transpose(0, 1)


class Bare(Adapted):
    """Takes projected queries, keys and values."""

    names = ("q_proj", "k_proj", "v_proj", "attention.output_proj")

    def __init__(self, family: str, config: MultiheadAttentionConfig) -> None:
        super().__init__(family, config)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(config.embed_dim, config.embed_dim) for _ in range(3))

    def made(self, kind: Any, theirs: Any) -> nn.Module:
        theirs.hidden_size, theirs.decoder_attention_heads = self.config.embed_dim, self.config.num_heads
        theirs.attention_dropout = self.config.attn_drop
        return kind(theirs)

    def attend(
        self, query: Tokens, key: Tokens, value: Tokens, attn_mask: Tensor | None, key_padding_mask: Padding | None
    ) -> Tokens:
        mask = self.one_mask(query, key, attn_mask, key_padding_mask)
        return self.attention(self.q_proj(query), mask, self.k_proj(key), self.v_proj(value))[0]


ADAPTERS: dict[str, type[Adapted]] = {"cross": Cross, "three": Three, "tokens first": TokensFirst, "bare": Bare}
