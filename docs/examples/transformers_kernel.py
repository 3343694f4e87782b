"""A kernel of yours inside transformers' models, by the hook that the library has for kernels.

transformers marks its sampling core as a layer that the package `kernels` may exchange: for one from the hub or, as
here, for one on this machine.

    model = DeformableDetrForObjectDetection(config).to("cuda")
    with_kernel(model, ms_deform_attn)

Each version of transformers accepts a narrow range of versions of `kernels` and marks nothing beside another one. Where
it did not, the mark is set here, by the function that `kernels` has for the layers of others.

Without that package, transformers' own table of classes to exchange does it for the models that are built afterwards.

    register_core(ms_deform_attn)
    model = AutoModelForObjectDetection.from_pretrained(folder)
"""

import torch
from torch import nn
from transformers.monkey_patching import register_patch_mapping

LAYER = "MultiScaleDeformableAttention"  # the class and the mark, in Deformable DETR and all who copied it


def layer_of(core):
    """A layer with transformers' signature around a core with the signature of `ms_deform_attn`."""

    class Layer(nn.Module):
        can_torch_compile = True
        has_backward = True

        def forward(
            self,
            value: torch.Tensor,
            value_spatial_shapes: torch.Tensor,
            value_spatial_shapes_list: list[tuple],
            level_start_index: torch.Tensor,
            sampling_locations: torch.Tensor,
            attention_weights: torch.Tensor,
            im2col_step: int,
        ):
            return core(value, value_spatial_shapes, level_start_index, sampling_locations, attention_weights)

    return Layer


class Repository:
    """Where `kernels` finds a layer."""

    def __init__(self, core):
        self.layer = layer_of(core)

    def load(self):
        return self.layer


def with_kernel(model, core):
    """The model with `core` in place of every sampling core, in training and under torch.compile too."""
    from kernels import Mode, kernelize, replace_kernel_forward_from_hub, use_kernel_mapping

    for kind in {type(part) for part in model.modules() if type(part).__name__ == LAYER}:
        if not hasattr(kind, "kernel_layer_name"):
            replace_kernel_forward_from_hub(kind, LAYER)
    device = model.device.type
    with use_kernel_mapping({LAYER: {device: Repository(core)}}, inherit_mapping=False):
        return kernelize(model, mode=Mode.TRAINING | Mode.TORCH_COMPILE, device=device, use_fallback=False)


def register_core(core):
    """From now on from_config and from_pretrained build models with `core` in place of every sampling core."""
    register_patch_mapping({LAYER: layer_of(core)}, overwrite=True)
