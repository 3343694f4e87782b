"""A kernel in JAX, eager and compiled; its gradients are those of `jax.vjp`."""

from detr_conformance import Target, from_jax
from detr_conformance.targets.jax_core import ms_deform_attn  # yours in its place

eager = Target(name="my-jax-kernel", provides={"ms_deform_attn": from_jax(ms_deform_attn)})
target = Target(name="my-jitted-kernel", provides={"ms_deform_attn": from_jax(ms_deform_attn, jit=True)})
