"""The four corners of each sample: where they are, what they count, and what their gradients make of the sample's.

Corners: upper left, upper right, lower left, lower right. The functions fill in tensors of the caller, and work on the
last axis as it lies, so that they are few operators and what they make stays in the caches.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detr_reference.kernels.cpu_layout import Layout


def look(
    locations: Float[Tensor, "image query head sample 2"],
    layout: Layout,
    entries: Int[Tensor, "image query head 4 sample"],
    fractions: Float[Tensor, "image query head 2 sample"],
) -> None:
    """Fill in the rows of the table that are the corners, and x and y of the sample from the upper left one, in cells.

    A sample out of range, or with a coordinate that is NaN, is moved to (W, H).
    """
    pixels = fractions.copy_(locations.mT).mul_(layout.sizes).sub_(0.5)
    torch.threshold_(pixels, -1.0, math.inf).nan_to_num_(nan=math.inf, posinf=math.inf)
    torch.minimum(pixels, layout.sizes, out=pixels)
    corner = pixels.floor()
    pixels.sub_(corner)
    left, top = corner.to(layout.exact).unbind(-2)
    cell = torch.addcmul(left, top, layout.stride).to(entries.dtype)
    torch.add(cell.unsqueeze(-2), layout.corners, out=entries)


def corner_shares(
    weights: Float[Tensor, "image query head sample"],
    fractions: Float[Tensor, "image query head 2 sample"],
    shares: Float[Tensor, "image query head 4 sample"],
) -> None:
    """Fill in weight * (1 - x or x) * (1 - y or y)."""
    x, y = fractions.unbind(-2)
    upper_left, upper_right, lower_left, lower_right = shares.unbind(-2)
    torch.mul(weights, x, out=upper_right)
    torch.sub(weights, upper_right, out=upper_left)
    torch.mul(upper_left, y, out=lower_left)
    torch.mul(upper_right, y, out=lower_right)
    upper_left.sub_(lower_left)
    upper_right.sub_(lower_right)


def sample_gradients(
    products: Float[Tensor, "image query head 4 sample"],
    weights: Float[Tensor, "image query head sample"],
    fractions: Float[Tensor, "image query head 2 sample"],
    layout: Layout,
    of_weights: Float[Tensor, "image query head sample"],
    of_locations: Float[Tensor, "image query head sample 2"],
) -> None:
    """Fill in the gradients of weight and location; `products` are those of the bag's gradient and the corners.

    They interpolate between the products p: that of the weight is their bilinear mean, that of the location has
    W * weight * ((1 - y) * (p2 - p1) + y * (p4 - p3)) and H * weight * ((1 - x) * (p3 - p1) + x * (p4 - p2)).
    """
    x, y = fractions.unbind(-2)
    upper_left, upper_right, lower_left, lower_right = products.unbind(-2)
    down_left, down_right = lower_left - upper_left, lower_right - upper_right
    left = torch.addcmul(upper_left, y, down_left)
    right = torch.addcmul(upper_right, y, down_right)
    torch.lerp(left, right, x, out=of_weights)
    width, height = layout.sizes
    of_locations[..., 0] = right.sub_(left).mul_(weights).mul_(width)
    of_locations[..., 1] = down_left.lerp_(down_right, x).mul_(weights).mul_(height)
