"""The layers around deformable attention against their sublayers, one after another, and what reaches what."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_reference.deformable_attention.core import level_starts, ms_deform_attn
from detr_reference.transformer.config import DeformableLayerConfig
from detr_reference.transformer.deformable_layer import DeformableDecoderLayer, DeformableEncoderLayer

SHAPES = torch.tensor([(3, 5), (2, 4)])
CONFIG = DeformableLayerConfig(8, 2, 6, num_levels=2, num_points=3, dropout=0.0)
CELLS, QUERIES = 23, 4


def perturbed(layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return layer.double().eval()


def call(queries: int) -> dict[str, Any]:
    padding = torch.zeros(2, CELLS, dtype=torch.bool)
    padding[0, 20:] = padding[1, 11:15] = True
    return {
        "query": torch.randn(2, queries, 8, dtype=torch.float64),
        "query_pos": torch.randn(2, queries, 8, dtype=torch.float64),
        "key_padding_mask": padding,
        "reference_points": torch.rand(2, queries, 2, 4, dtype=torch.float64),
        "spatial_shapes": SHAPES,
        "level_start_index": level_starts(SHAPES),
    }


def plain_norm(layer: nn.Module, index: int, x: Tensor) -> Tensor:
    return F.layer_norm(x, (8,), layer.norms[index].weight, layer.norms[index].bias)


def plain_network(layer: nn.Module, x: Tensor) -> Tensor:
    first, last = layer.ffns[0].layers[0][0], layer.ffns[0].layers[1]
    return last(first(x).relu())


def plain_deformable(layer: nn.Module, index: int, given: dict[str, Any], looking: Tensor, value: Tensor) -> Tensor:
    """Without positions and identity, which were added before."""
    where = ("key_padding_mask", "reference_points", "spatial_shapes", "level_start_index")
    rest = {name: given[name] for name in where}
    return layer.attentions[index](looking, value, identity=torch.zeros_like(looking), **rest)


def test_encoder_layer() -> None:
    layer, given = perturbed(DeformableEncoderLayer(CONFIG)), call(CELLS)
    x, pos = given["query"], given["query_pos"]
    x = plain_norm(layer, 0, x + plain_deformable(layer, 0, given, x + pos, x))
    expected = plain_norm(layer, 1, x + plain_network(layer, x))
    torch.testing.assert_close(layer(**given), expected)


def test_decoder_layer() -> None:
    layer, given = perturbed(DeformableDecoderLayer(CONFIG)), call(QUERIES)
    value = torch.randn(2, CELLS, 8, dtype=torch.float64)
    mask = torch.ones(QUERIES, QUERIES, dtype=torch.bool).triu(2)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(layer.attentions[0].state_dict())
    x, pos = given["query"], given["query_pos"]
    x = plain_norm(layer, 0, x + theirs(x + pos, x + pos, x, attn_mask=mask)[0])
    x = plain_norm(layer, 1, x + plain_deformable(layer, 1, given, x + pos, value))
    expected = plain_norm(layer, 2, x + plain_network(layer, x))
    torch.testing.assert_close(layer(**given, value=value, attn_mask=mask), expected)


def test_positions_and_masks_may_be_left_out() -> None:
    for layer, rest in (
        (DeformableEncoderLayer(CONFIG), {}),
        (DeformableDecoderLayer(CONFIG), {"value": torch.randn(2, CELLS, 8, dtype=torch.float64)}),
    ):
        given = call(CELLS)
        zeros = {"query_pos": torch.zeros_like(given["query"]), "key_padding_mask": torch.zeros(2, CELLS) > 0}
        nothing = {"query_pos": None, "key_padding_mask": None}
        perturbed(layer)
        assert torch.equal(layer(**{**given, **nothing, **rest}), layer(**{**given, **zeros, **rest}))


def test_any_core_runs_inside() -> None:
    calls = []

    def core(*arguments: Tensor) -> Tensor:
        calls.append(arguments)
        return ms_deform_attn(*arguments)

    perturbed(DeformableEncoderLayer(CONFIG, core))(**call(CELLS))
    perturbed(DeformableDecoderLayer(CONFIG, core))(**call(3), value=torch.randn(2, CELLS, 8, dtype=torch.float64))
    assert [each[3].shape[1] for each in calls] == [CELLS, 3]


@pytest.mark.parametrize("kind", [DeformableEncoderLayer, DeformableDecoderLayer])
def test_dropout_is_everywhere_and_in_training_only(kind: type[nn.Module]) -> None:
    layer = kind(DeformableLayerConfig(8, 2, 6, 2, 3, dropout=0.25))
    rates = {name: module.p for name, module in layer.named_modules() if isinstance(module, nn.Dropout)}
    assert set(rates.values()) == {0.25}
    assert len(rates) == (3 if kind is DeformableEncoderLayer else 5)


def test_configuration_errors() -> None:
    for changes, message in (
        ({"num_heads": 3}, "num_heads must divide embed_dim"),
        ({"num_points": 0}, "num_points must be at least 1, got 0"),
        ({"feedforward_dim": 0}, "feedforward_dim must be at least 1, got 0"),
        ({"dropout": -0.5}, r"must lie between 0 and 1, got -0\.5"),
        ({"activation": "silu"}, "activation must be one of relu, gelu, got 'silu'"),
    ):
        with pytest.raises(ValueError, match=message):
            DeformableLayerConfig(**changes)


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_the_argument() -> None:
    layer, given = perturbed(DeformableEncoderLayer(CONFIG)), call(CELLS)
    with pytest.raises(ValueError, match=r"reference_points must be .*\(2, 23, 2\)"):
        layer(**{**given, "reference_points": given["reference_points"][:, :, :1]})
