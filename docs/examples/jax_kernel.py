"""A kernel in JAX, eager and compiled; its gradients are those of `jax.vjp`."""

from detr_conformance import Target, from_jax
from detr_conformance.targets.jax_core import ms_deform_attn  # yours in its place

eager = Target(name="my-jax-kernel", provides={"ms_deform_attn": from_jax(ms_deform_attn)})
target = Target(name="my-jitted-kernel", provides={"ms_deform_attn": from_jax(ms_deform_attn, jit=True)})


def half_a_cell_off(value, spatial_shapes, level_start_index, sampling_locations, attention_weights):
    """A wrong one: its pixel is location * size, half a cell beside location * size - 0.5."""
    beside = sampling_locations + 0.5 / spatial_shapes[:, None, ::-1]
    locations = beside.astype(sampling_locations.dtype)
    return ms_deform_attn(value, spatial_shapes, level_start_index, locations, attention_weights)


wrong = Target(name="my-wrong-jax-kernel", provides={"ms_deform_attn": from_jax(half_a_cell_off)})
