"""Inputs of `ms_deform_attn` for the tests: random numbers on a given structure."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_reference.deformable_attention.core import level_starts

Shapes = list[tuple[int, int]]


class Case(NamedTuple):
    """The five arguments, in order: `ms_deform_attn(*case)`."""

    value: Tensor
    spatial_shapes: Tensor
    level_start_index: Tensor
    sampling_locations: Tensor
    attention_weights: Tensor

    def to(self, dtype: torch.dtype) -> Case:
        """The floating-point arguments in another dtype."""
        return self._replace(
            value=self.value.to(dtype),
            sampling_locations=self.sampling_locations.to(dtype),
            attention_weights=self.attention_weights.to(dtype),
        )

    def requiring_grad(self) -> Case:
        """Fresh leaves."""
        return self._replace(
            value=self.value.detach().clone().requires_grad_(),
            sampling_locations=self.sampling_locations.detach().clone().requires_grad_(),
            attention_weights=self.attention_weights.detach().clone().requires_grad_(),
        )

    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.value, self.sampling_locations, self.attention_weights

    def shapes(self) -> Shapes:
        return [(height, width) for height, width in self.spatial_shapes.tolist()]


def make_case(
    shapes: Shapes,
    *,
    batch: int = 2,
    queries: int = 5,
    heads: int = 2,
    channels: int = 3,
    points: int = 3,
    reach: float = 2.5,
    margin: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Case:
    """Random case whose pixel coordinates lie in (-reach, size - 1 + reach), at least margin from an integer.

    A location gradient jumps at integer pixel coordinates, so comparisons with difference quotients need a
    margin. Weights are of both signs and do not sum to one.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    spatial_shapes = torch.tensor(shapes, dtype=torch.int64).reshape(-1, 2)
    size = spatial_shapes.flip(-1)[:, None]  # (W, H)
    samples = (batch, queries, heads, len(shapes), points)
    pixel = uniform(*samples, 2) * (size - 1 + 2 * reach) - reach
    pixel = pixel.floor() + margin + (1 - 2 * margin) * (pixel - pixel.floor())
    return Case(
        value=uniform(batch, int(spatial_shapes.prod(-1).sum()), heads, channels) * 2 - 1,
        spatial_shapes=spatial_shapes,
        level_start_index=level_starts(spatial_shapes),
        sampling_locations=(pixel + 0.5) / size.clamp(min=1),
        attention_weights=uniform(*samples) * 2 - 1,
    ).to(dtype)


@st.composite
def cases(draw: st.DrawFn, *, margin: float = 0.0, largest_side: int = 6) -> Case:
    """Small cases of every structure: one cell to a few, H != W, L != P, samples inside, on borders, far."""
    side = st.integers(1, largest_side)
    return make_case(
        draw(st.lists(st.tuples(side, side), min_size=1, max_size=3)),
        batch=draw(st.integers(1, 3)),
        queries=draw(st.integers(1, 4)),
        heads=draw(st.integers(1, 3)),
        channels=draw(st.integers(1, 4)),
        points=draw(st.integers(1, 4)),
        reach=draw(st.sampled_from([0.0, 0.5, 1.0, 2.5, 50.0])),
        margin=margin,
        seed=draw(st.integers(0, 2**16)),
    )
