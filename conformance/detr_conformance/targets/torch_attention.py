"""torch's attention: the module, on both its paths, and scaled_dot_product_attention. Read in torch 2.13.

`nn.MultiheadAttention` takes two paths. With `need_weights=True`, the default, which DETR, Deformable DETR, DINO and
detrex use, it multiplies, takes the softmax and multiplies again; with `need_weights=False` it calls
scaled_dot_product_attention. They differ where a query may attend to nothing (MHA-15). A third path, in evaluation, for
self-attention without gradients, is one fused function and differs again.

What the adapters add is said in `attention_frame`. Around scaled_dot_product_attention they add the projections, the
split into heads, and one additive mask in place of its own boolean one, which is True where attention is allowed.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from detr_conformance.target import DTYPES, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from detr_reference.attention.config import MultiheadAttentionConfig

Factory = Callable[["MultiheadAttentionConfig", "Mapping[str, Tensor] | None"], "nn.Module"]


def module(need_weights: bool) -> Factory:
    """`nn.MultiheadAttention` in the frame, on the path that returns weights or on the other one."""

    def factory(config: MultiheadAttentionConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        from detr_conformance.targets.torch_attention_adapters import TorchModule, loaded

        return loaded(TorchModule(config, need_weights), state_dict)

    return factory


def function(config: MultiheadAttentionConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
    """`scaled_dot_product_attention` in the frame."""
    from detr_conformance.targets.torch_attention_adapters import TorchFunction, loaded

    return loaded(TorchFunction(config), state_dict)


def _target(name: str, factory: Factory) -> Target:
    return Target(
        name=name,
        provides={"multihead_attention": factory},
        devices=("cpu",),
        dtypes=DTYPES,
        features=("backward", "deterministic", "autocast"),
        deviations=Path(str(files("detr_conformance") / "deviations" / "torch.toml")),
        version=importlib.metadata.version("torch"),
    )


with_weights = _target("torch-MultiheadAttention", module(need_weights=True))
without_weights = _target("torch-MultiheadAttention-no-weights", module(need_weights=False))
scaled_dot_product_attention = _target("torch-scaled_dot_product_attention", function)
