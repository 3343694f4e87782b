"""A kernel in NumPy: forward only, and with its gradients."""

from detr_conformance import Target, from_numpy
from detr_conformance.targets.numpy_core import ms_deform_attn, vjp  # yours in their place

forward = Target(name="my-numpy-kernel", provides={"ms_deform_attn": from_numpy(ms_deform_attn)}, features=())
target = Target(name="my-numpy-kernel", provides={"ms_deform_attn": from_numpy(ms_deform_attn, vjp)})
