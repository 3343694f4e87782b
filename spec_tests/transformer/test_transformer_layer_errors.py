"""What a transformer layer refuses, and what it says then."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from detr_reference.transformer.layer import build_decoder_layer, build_encoder_layer
from helpers.tiny.transformer_layer_cases import POST, config, decoder_call, encoder_call, without_cross


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((), "at least one of self_attn, cross_attn, ffn"),
        (("norm",), "at least one of self_attn, cross_attn, ffn"),
        (("self_attn", "dropout"), r"operation_order\[1\] is 'dropout'; it must be one of"),
        (("self_attn", "norm", "norm", "ffn"), "two norms in a row"),
        (("norm", "norm", "ffn"), "two norms in a row"),
        (("norm", "self_attn", "norm", "ffn", "norm"), "begins and ends with a norm.*belongs to the stack"),
    ],
)
def test_an_order_that_is_no_layer_is_refused(order: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(*order)


@pytest.mark.usefixtures("unchecked_shapes")
def test_an_order_in_a_string_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a tuple of names, got the string 'ffn'"):
        replace(config("ffn"), operation_order="ffn")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_heads", 5, "num_heads must divide embed_dim"),
        ("feedforward_dim", 0, "feedforward_dim must be at least 1"),
        ("attn_drop", 2.0, "attn_drop must lie between 0 and 1"),
        ("ffn_drop", -1.0, "ffn_drop must lie between 0 and 1"),
        ("activation", "silu", "activation must be one of relu, gelu"),
        ("layer_norm_eps", 0.0, "layer_norm_eps must be positive"),
    ],
)
def test_configuration_is_checked(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(*POST, **{field: value})


def test_the_kind_of_layer_must_fit_the_order() -> None:
    with pytest.raises(ValueError, match="an encoder layer has no key for the cross_attn"):
        build_encoder_layer(config(*POST))
    with pytest.raises(ValueError, match="has no cross_attn, so that the key would be ignored"):
        build_decoder_layer(config(*without_cross(POST)))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("query", (2, 5, 11), "query must be (batch, length, 12), got (2, 5, 11)"),
        ("key", (2, 7), "key must be (batch, length, 12), got (2, 7)"),
        ("key", (3, 7, 12), "key_pos (2, 7, 12) must have the shape of key, (3, 7, 12)"),
        ("query_pos", (1, 5, 12), "query_pos (1, 5, 12) must have the shape of query, (2, 5, 12)"),
        ("key_pos", (2, 5, 12), "key_pos (2, 5, 12) must have the shape of key, (2, 7, 12)"),
        ("attn_mask", (5, 7), "attn_mask must be (query, key) = (5, 5)"),
        ("cross_attn_mask", (7, 5), "cross_attn_mask must be (query, key) = (5, 7)"),
        ("query_key_padding_mask", (2, 7), "query_key_padding_mask must be (batch, length) = (2, 5), got (2, 7)"),
        ("key_padding_mask", (2, 5), "key_padding_mask must be (batch, length) = (2, 7), got (2, 5)"),
    ],
)
def test_shapes_are_checked(name: str, shape: tuple[int, ...], message: str) -> None:
    call = decoder_call()
    call[name] = torch.zeros(shape, dtype=call[name].dtype)
    with pytest.raises(ValueError, match=re.escape(message)):
        build_decoder_layer(config(*POST)).double()(**call)


@pytest.mark.usefixtures("unchecked_shapes")
def test_batches_must_be_equal() -> None:
    call = decoder_call()
    query, key = call["query"], call["key"][:1]
    with pytest.raises(ValueError, match=r"key \(1, 7, 12\) and query \(2, 5, 12\) differ in batch"):
        build_decoder_layer(config(*POST)).double()(query, key)


@pytest.mark.usefixtures("unchecked_shapes")
def test_padding_masks_are_boolean() -> None:
    call = encoder_call()
    call["query_key_padding_mask"] = call["query_key_padding_mask"].double()
    with pytest.raises(TypeError, match="query_key_padding_mask must be bool"):
        build_encoder_layer(config(*without_cross(POST))).double()(**call)
