"""The reference under torch.compile with the inductor backend, for CPUs with a C++ compiler.

One graph serves every size: no size is specialised, 0 and 1 included, and equal sizes are not taken for one. What is
left to compile for is the dtype, which arguments ask for gradients, and the grad mode. A call that would exceed
`GRAPHS`, or that reaches no compiled code, raises instead of running eagerly.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from detr_conformance.target import Target, TargetError

if TYPE_CHECKING:
    from detr_reference.deformable_attention_module import MSDeformAttnConfig, MultiScaleDeformableAttention
    from jaxtyping import Float, Int
    from torch import Tensor

GRAPHS = 32


def _require_compiler() -> None:
    default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", default)
    if shutil.which(compiler) is None:
        raise TargetError(f"there is no C++ compiler {compiler!r}; install one or name it in CXX")


_require_compiler()


class Compiled:
    """A function that runs compiled or raises."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        import torch
        import torch._functorch.config

        torch._functorch.config.donated_buffer = False  # else backward(retain_graph=True) raises, now or later
        self.name = function.__name__
        self.runs = 0
        self.for_any_size, self.for_this_size = (
            torch.compile(function, fullgraph=True, dynamic=dynamic, backend=self._backend)
            for dynamic in (True, False)
        )

    def _backend(self, graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        from torch._inductor.compile_fx import compile_fx

        compiled = compile_fx(graph, inputs)

        def counted(*arguments: Any) -> Any:
            self.runs += 1
            return compiled(*arguments)

        return counted

    def __call__(self, *arguments: Tensor) -> Tensor:
        from torch._dynamo import config as dynamo
        from torch.fx.experimental import _config as symbols

        empty = any(argument.numel() == 0 for argument in arguments)  # symbolic sizes cannot be traced at 0
        compiled = self.for_this_size if empty else self.for_any_size
        before = self.runs
        with (
            symbols.patch(use_duck_shape=False, backed_size_oblivious=True),
            dynamo.patch(recompile_limit=GRAPHS, fail_on_recompile_limit_hit=True),
        ):
            output = compiled(*arguments)
        if self.runs == before:
            raise RuntimeError(f"{self.name} ran without reaching compiled code")
        return output


@cache
def _compiled_core() -> Compiled:
    from detr_reference.deformable_attention import ms_deform_attn

    return Compiled(ms_deform_attn)


def ms_deform_attn(
    value: Float[Tensor, "batch cell head channel"],
    spatial_shapes: Int[Tensor, "level 2"],
    level_start_index: Int[Tensor, " level"],
    sampling_locations: Float[Tensor, "batch query head level point 2"],
    attention_weights: Float[Tensor, "batch query head level point"],
) -> Float[Tensor, "batch query head*channel"]:
    """The compiled `detr_reference.deformable_attention.ms_deform_attn`."""
    return _compiled_core()(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)


def ms_deform_attn_module(
    config: MSDeformAttnConfig, state_dict: Mapping[str, Tensor] | None
) -> MultiScaleDeformableAttention:
    """The reference's module around the compiled core."""
    from detr_reference.deformable_attention_module import build

    module = build(config, state_dict)
    module.core = _compiled_core()
    return module


target = Target(
    name="reference-compiled",
    provides={"ms_deform_attn": ms_deform_attn, "ms_deform_attn_module": ms_deform_attn_module},
    devices=("cpu",),
    dtypes=("float32",),
    features=("backward", "deterministic"),
)
