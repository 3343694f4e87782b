"""A kernel in NumPy: forward only, and with its gradients."""

from detr_conformance import Target, from_numpy
from detr_conformance.targets.numpy_core import ms_deform_attn, vjp  # yours in their place

forward = Target(name="my-numpy-kernel", provides={"ms_deform_attn": from_numpy(ms_deform_attn)}, features=())
target = Target(name="my-numpy-kernel", provides={"ms_deform_attn": from_numpy(ms_deform_attn, vjp)})


def heights_first(value, spatial_shapes, level_start_index, sampling_locations, attention_weights):
    """A wrong one: takes a location for (y, x)."""
    return ms_deform_attn(value, spatial_shapes, level_start_index, sampling_locations[..., ::-1], attention_weights)


wrong = Target(name="my-wrong-numpy-kernel", provides={"ms_deform_attn": from_numpy(heights_first)}, features=())
