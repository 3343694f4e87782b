"""Two implementations to point the suite at: a right one, and one with a border bug that looks harmless."""

import torch
import torch.nn.functional as F

from detr_conformance import Target


def by_grid_sample(value, spatial_shapes, level_start_index, sampling_locations, attention_weights, padding="zeros"):
    """One grid_sample a level, as most pure-PyTorch implementations have it."""
    batch, _, heads, channels = value.shape
    samples = []
    for level, (height, width) in enumerate(spatial_shapes.tolist()):
        start = int(level_start_index[level])
        maps = value[:, start : start + height * width].permute(0, 2, 3, 1)
        maps = maps.reshape(batch * heads, channels, height, width)
        grid = 2 * sampling_locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        samples.append(F.grid_sample(maps, grid, padding_mode=padding, align_corners=False))
    weights = attention_weights.transpose(1, 2).flatten(0, 1).flatten(2)[:, None]
    output = (torch.stack(samples, -2).flatten(-2) * weights).sum(-1)
    return output.unflatten(0, (batch, heads)).permute(0, 3, 1, 2).flatten(2)


def clamped(value, spatial_shapes, level_start_index, sampling_locations, attention_weights):
    """The same with the border repeated: indistinguishable as long as no sample leaves the map."""
    return by_grid_sample(
        value, spatial_shapes, level_start_index, sampling_locations, attention_weights, padding="border"
    )


target = Target(
    name="my-kernel",
    provides={"ms_deform_attn": by_grid_sample},
    devices=("cpu",),
    dtypes=("float64", "float32"),
    features=("backward", "deterministic"),
)
broken = Target(name="my-broken-kernel", provides={"ms_deform_attn": clamped}, dtypes=("float32",))
