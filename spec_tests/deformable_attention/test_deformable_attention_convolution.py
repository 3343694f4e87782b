"""Deformable attention as a convolution: plain where offsets ignore the query, else deformable."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detr_reference.deformable_attention.config import MSDeformAttnConfig
from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.deformable_attention.module import MultiScaleDeformableAttention
from helpers.oracles.deform_conv import deform_conv, square_taps

HEIGHT, WIDTH = 5, 7
TAPS = square_taps(1)


def cell_centres() -> Tensor:
    """(cell, 2): one query at the centre of each cell, as (x, y)."""
    x = (torch.arange(WIDTH, dtype=torch.float64) + 0.5) / WIDTH
    y = (torch.arange(HEIGHT, dtype=torch.float64) + 0.5) / HEIGHT
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)


def one_level_module(config: MSDeformAttnConfig) -> MultiScaleDeformableAttention:
    module = MultiScaleDeformableAttention(config).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module


def attend(module: MultiScaleDeformableAttention, maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W), without the identity; the query is the map itself."""
    query = maps.flatten(2).transpose(1, 2)
    output = module(
        query,
        identity=torch.zeros_like(query),
        reference_points=cell_centres()[None, :, None].expand(len(maps), -1, 1, 2),
        spatial_shapes=torch.tensor([(HEIGHT, WIDTH)]),
        level_start_index=torch.tensor([0]),
    )
    return output.transpose(1, 2).unflatten(2, (HEIGHT, WIDTH))


def test_query_independent_module_is_a_plain_convolution() -> None:
    """One level, stride 1, zero padding, integer offsets that do not depend on the query.

    kernel[:, :, tap] = sum over heads of a[head, tap] * W_out[head] W_value[head]
    """
    config = MSDeformAttnConfig(embed_dim=6, num_heads=3, num_levels=1, num_points=9)
    module = one_level_module(config)
    offsets = torch.tensor(TAPS, dtype=torch.float64).flip(-1)  # as (x, y)
    with torch.no_grad():
        module.sampling_offsets.weight.zero_()
        module.attention_weights.weight.zero_()
        module.value_proj.bias.zero_()  # a bias would be padded with zeros too, unlike a convolution's
        module.sampling_offsets.bias.copy_(offsets.repeat(3, 1).flatten())
    a = module.attention_weights.bias.reshape(3, 9).softmax(-1)
    out_by_head = module.output_proj.weight.unflatten(1, (3, 2))  # (out, head, channel)
    value_by_head = module.value_proj.weight.unflatten(0, (3, 2))  # (head, channel, in)
    kernel = torch.einsum("ohd,ht,hdi->oit", out_by_head, a, value_by_head).unflatten(-1, (3, 3))
    maps = torch.randn(2, 6, HEIGHT, WIDTH, dtype=torch.float64)
    expected = F.conv2d(maps, kernel, module.output_proj.bias, padding=1)
    torch.testing.assert_close(attend(module, maps), expected)


def test_query_dependent_module_is_no_plain_convolution() -> None:
    """With a query-dependent term the response to a sum is not the sum of the responses."""
    module = one_level_module(MSDeformAttnConfig(embed_dim=6, num_heads=3, num_levels=1, num_points=9))
    with torch.no_grad():
        module.output_proj.bias.zero_()
        module.value_proj.bias.zero_()
    u, v = torch.randn(2, 1, 6, HEIGHT, WIDTH, dtype=torch.float64)
    assert (attend(module, u + v) - attend(module, u) - attend(module, v)).abs().max() > 0.1


def test_one_point_a_head_is_a_deformable_convolution() -> None:
    """With value projection = identity: a 1 x 1 deformable convolution with a group of channels a head."""
    heads, channels = 3, 6
    config = MSDeformAttnConfig(embed_dim=channels, num_heads=heads, num_levels=1, num_points=1)
    module = one_level_module(config)
    with torch.no_grad():
        module.value_proj.weight.copy_(torch.eye(channels))
        module.value_proj.bias.zero_()
    maps = torch.randn(2, channels, HEIGHT, WIDTH, dtype=torch.float64)
    offsets = module.sampling_offsets(maps.permute(0, 2, 3, 1)).unflatten(-1, (heads, 1, 2)).flip(-1)  # (dy, dx)
    expected = [
        deform_conv(
            image.numpy(),
            module.output_proj.weight.detach()[..., None].numpy(),
            [(0, 0)],
            offset.permute(2, 3, 4, 0, 1).detach().numpy(),
            torch.ones(heads, 1, HEIGHT, WIDTH).double().numpy(),
        )
        for image, offset in zip(maps, offsets, strict=True)
    ]
    bias = module.output_proj.bias[:, None, None]
    torch.testing.assert_close(attend(module, maps), torch.tensor(np.stack(expected)) + bias)


def test_heads_as_taps_are_a_modulated_deformable_convolution() -> None:
    """Heads as the taps of a 3 x 3 kernel, all reading every channel: deformable convolution v2."""
    channels, taps = 2, len(TAPS)
    x = torch.randn(channels, HEIGHT, WIDTH, dtype=torch.float64)
    weight = torch.randn(4, channels, taps, dtype=torch.float64)
    offset = torch.randn(1, taps, 2, HEIGHT, WIDTH, dtype=torch.float64)
    mask = torch.rand(1, taps, HEIGHT, WIDTH, dtype=torch.float64)
    moved = offset[0].permute(2, 3, 0, 1) + torch.tensor(TAPS)  # (H, W, tap, (dy, dx)) in cells
    locations = cell_centres().reshape(HEIGHT, WIDTH, 1, 2) + moved.flip(-1) / torch.tensor((WIDTH, HEIGHT))
    sampled = ms_deform_attn(
        x.flatten(1).T[None, :, None].expand(1, -1, taps, channels),
        torch.tensor([(HEIGHT, WIDTH)]),
        torch.tensor([0]),
        locations.flatten(0, 1)[None, :, :, None, None],
        mask[0].flatten(1).T[None, :, :, None, None],
    )
    output = torch.einsum("oct,qtc->oq", weight, sampled[0].unflatten(-1, (taps, channels)))
    expected = deform_conv(x.numpy(), weight.numpy(), TAPS, offset.numpy(), mask.numpy())
    torch.testing.assert_close(output.unflatten(-1, (HEIGHT, WIDTH)), torch.from_numpy(expected))
