"""The module's initialisation, number by number."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from detr_reference.deformable_attention.config import MSDeformAttnConfig
from detr_reference.deformable_attention.module import MultiScaleDeformableAttention, build

# Directions of the heads, by hand: on the border of the square of side 2.
TAN = math.tan(math.pi / 6)
DIRECTIONS = {
    1: [(1, 0)],
    2: [(1, 0), (-1, 0)],
    3: [(1, 0), (-TAN, 1), (-TAN, -1)],
    4: [(1, 0), (0, 1), (-1, 0), (0, -1)],
    8: [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)],
}


def offsets(module: MultiScaleDeformableAttention) -> Tensor:
    config = module.config
    return module.sampling_offsets.bias.detach().reshape(config.num_heads, config.num_levels, config.num_points, 2)


@pytest.mark.parametrize("heads", DIRECTIONS)
def test_offsets_fan_out(heads: int) -> None:
    """Point i of head h lies at (i + 1) * dir_h / max|dir_h| cells, the same on every level."""
    module = build(MSDeformAttnConfig(embed_dim=24, num_heads=heads, num_levels=3, num_points=5))
    for level in range(3):
        for point in range(5):
            expected = torch.tensor(DIRECTIONS[heads]) * (point + 1.0)
            torch.testing.assert_close(offsets(module)[:, level, point], expected, rtol=1e-6, atol=1e-6)


def test_nothing_depends_on_the_query_and_all_weights_are_equal() -> None:
    """Offset and weight matrices and the weights' bias are zero, so every weight is 1 / (L * P)."""
    module = build(MSDeformAttnConfig(embed_dim=24, num_heads=4))
    for tensor in (
        module.sampling_offsets.weight,
        module.attention_weights.weight,
        module.attention_weights.bias,
    ):
        assert torch.count_nonzero(tensor) == 0


def test_projections_are_xavier_uniform_with_zero_bias() -> None:
    """Uniform within sqrt(6 / (C + C)), and filling that range; biases zero."""
    module = build(MSDeformAttnConfig(embed_dim=96, num_heads=4))
    bound = math.sqrt(6 / (96 + 96))
    for projection in (module.value_proj, module.output_proj):
        assert 0.98 * bound < projection.weight.abs().max() <= bound
        assert projection.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert torch.count_nonzero(projection.bias) == 0


def test_closed_form_of_the_output() -> None:
    """On an affine field with M = 4 the heads' offsets decide: head h reads the field at ref + 2.5 cells * dir_h.

    The mean over points 1 to 4 of the distance is 2.5; equal weights average the two levels.
    """
    config = MSDeformAttnConfig(embed_dim=4, num_heads=4, num_levels=2, num_points=4)
    module = MultiScaleDeformableAttention(config).double().eval()
    with torch.no_grad():
        module.value_proj.weight.copy_(torch.eye(4))
        module.output_proj.weight.copy_(torch.eye(4))
    shapes = [(16, 20), (12, 50)]
    maps = []
    for height, width in shapes:
        x = ((torch.arange(width) + 0.5) / width).expand(height, width)
        y = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
        maps.append((3 * x - 5 * y).double().flatten())
    output = module(
        torch.zeros(1, 1, 4).double(),
        torch.cat(maps)[None, :, None].expand(1, -1, 4),
        reference_points=torch.full((1, 1, 2, 2), 0.5).double(),
        spatial_shapes=torch.tensor(shapes),
        level_start_index=torch.tensor([0, 320]),
    )
    dx, dy = (sum(2.5 / shape[axis] for shape in shapes) / 2 for axis in (1, 0))
    expected = torch.tensor([3 * dx, -5 * dy, -3 * dx, 5 * dy], dtype=torch.float64) - 1
    torch.testing.assert_close(output[0, 0], expected, rtol=0, atol=1e-6)


def test_reset_after_a_global_loop_restores_it() -> None:
    """A model's xavier loop destroys the initialisation; reset_parameters afterwards brings it back."""
    module = build(MSDeformAttnConfig(embed_dim=24, num_heads=4))
    expected = offsets(module).clone()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    assert module.sampling_offsets.weight.abs().max() > 0
    module.reset_parameters()
    assert torch.equal(offsets(module), expected)
    for tensor in (module.sampling_offsets.weight, module.attention_weights.weight, module.output_proj.bias):
        assert torch.count_nonzero(tensor) == 0


def test_reset_after_a_move() -> None:
    """A module made without memory, then given some in another dtype, initialises in place."""
    config = MSDeformAttnConfig(embed_dim=24, num_heads=4)
    with torch.device("meta"):
        module = MultiScaleDeformableAttention(config)
    module = module.to_empty(device="cpu").double()
    module.reset_parameters()
    assert module.sampling_offsets.bias.dtype == torch.float64
    torch.testing.assert_close(offsets(module), offsets(build(config)).double())
    assert all(parameter.isfinite().all() for parameter in module.parameters())
