"""The neck: closed forms of its convolutions and norms, what the further levels read, errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detr_reference.features.channel_mapper import ChannelMapper, build
from detr_reference.features.config import ChannelMapperConfig
from helpers.tiny.detector_cases import scrambled

CONFIG = ChannelMapperConfig(in_channels=(3, 5), embed_dim=8, num_outs=4, num_groups=4)


def maps() -> list[Tensor]:
    return [torch.randn(2, 3, 6, 9, dtype=torch.float64), torch.randn(2, 5, 3, 5, dtype=torch.float64)]


def grouped(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """Group norm by its definition: over the channels of a group and all cells of one image."""
    parts = x.reshape(len(x), groups, -1)
    deviation = parts - parts.mean(-1, keepdim=True)
    normed = deviation / (deviation.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return normed.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]


def test_a_level_is_a_projection_and_a_group_norm() -> None:
    neck, given = scrambled(ChannelMapper(CONFIG)), maps()
    levels = neck(given)
    assert [level.shape[-2:] for level in levels] == [(6, 9), (3, 5), (2, 3), (1, 2)]
    for conv, each, level in zip(neck.convs, given, levels, strict=False):
        projected = torch.einsum("ec,bchw->behw", conv.conv.weight[..., 0, 0], each) + conv.conv.bias[:, None, None]
        torch.testing.assert_close(level, grouped(projected, conv.norm.weight, conv.norm.bias, groups=4))


def test_further_levels_read_the_last_map_and_then_each_other() -> None:
    """Windows of 3 x 3 around every other cell: of the backbone's map first, not of the level made of it."""
    neck, given = scrambled(ChannelMapper(CONFIG)), maps()
    levels = neck(given)
    for conv, before, level in zip(neck.extra_convs, (given[-1], levels[2]), levels[2:], strict=True):
        windows = torch.nn.functional.unfold(before, kernel_size=3, padding=1, stride=2)
        kernel = conv.conv.weight.flatten(1)
        convolved = (kernel @ windows + conv.conv.bias[:, None]).reshape(level.shape)
        torch.testing.assert_close(level, grouped(convolved, conv.norm.weight, conv.norm.bias, groups=4))


def test_names() -> None:
    """detrex's."""
    expected = [f"convs.{i}.{part}.{p}" for i in (0, 1) for part in ("conv", "norm") for p in ("weight", "bias")]
    expected += [name.replace("convs", "extra_convs") for name in expected]
    assert list(ChannelMapper(CONFIG).state_dict()) == expected


def test_initialisation() -> None:
    """Xavier-uniform with gain 1, biases zero."""
    neck = ChannelMapper(ChannelMapperConfig((64, 128), embed_dim=64))
    for conv, fans in ((neck.convs[0].conv, 64 + 64), (neck.extra_convs[1].conv, 9 * (64 + 64))):
        assert conv.weight.abs().max().item() == pytest.approx((6 / fans) ** 0.5, rel=0.02)
        assert not conv.bias.any()


def test_no_further_levels() -> None:
    assert len(ChannelMapper(replace(CONFIG, num_outs=2)).extra_convs) == 0


def test_build_copies_the_parameters_it_is_given() -> None:
    state = scrambled(ChannelMapper(CONFIG)).state_dict()
    for name, tensor in build(CONFIG, state).state_dict().items():
        assert torch.equal(tensor, state[name])
        assert tensor.data_ptr() != state[name].data_ptr()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"in_channels": ()}, r"in_channels must be numbers from 1 up, got \(\)"),
        ({"in_channels": (3, 0)}, r"got \(3, 0\)"),
        ({"num_outs": 1}, r"num_outs 1 is less than the maps of in_channels \(3, 5\)"),
        ({"num_groups": 3}, "num_groups must divide embed_dim, got 3 and 8"),
        ({"embed_dim": 0}, "embed_dim must be at least 1, got 0"),
    ],
)
def test_wrong_configuration_is_named(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(CONFIG, **wrong)


def test_other_maps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"maps must have the channels \(3, 5\), got \(5, 3\)"):
        ChannelMapper(CONFIG)([each.float() for each in maps()[::-1]])
    with pytest.raises(ValueError, match=r"maps must have the channels \(3, 5\), got \(3,\)"):
        ChannelMapper(CONFIG)([maps()[0].float()])
