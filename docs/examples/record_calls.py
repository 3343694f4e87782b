"""The calls that transformers' Deformable DETR makes of its sampling core, saved to be judged.

recordings = record_cores(model, "calls")
model(pixel_values)
for recording in recordings:
    recording.remove()

$ detr-spec check my_kernel.py:target --cases calls
"""

from detr_conformance import record

NAMES = {"value_spatial_shapes": "spatial_shapes"}  # theirs -> the operation's; the others agree
LAYER = "MultiScaleDeformableAttention"  # in Deformable DETR and all who copied it


def record_cores(model, folder):
    """Watches every sampling core of a model; what they are called with is saved into the folder."""
    cores = [module for module in model.modules() if type(module).__name__ == LAYER]
    return [record(core, folder, operation="ms_deform_attn", names=NAMES) for core in cores]
