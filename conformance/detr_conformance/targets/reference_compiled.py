"""The blocks of the reference under torch.compile: the sampling core by inductor, the others by AOT autograd.

The core, where there is a C++ compiler. Few shapes: torch would compile anew for every axis of size 0 or 1 and every
kind of strides, and hundreds of small calls would take hours. So arguments are made contiguous and axes shorter than
two are padded to two, with samples that lie outside; what was added is cut off the output. What remains is one graph,
symbolic in every size, for each set of arguments that ask for gradients and each grad mode. The module is the
reference's around this core. A call that would exceed `GRAPHS`, or that reaches no compiled code, raises instead of
running eagerly.

The blocks of chapters 4 to 9. Each module and each function is captured whole and run by the backend `aot_eager`:
forward and backward are torch's traced graphs, but no code is generated for them, which at a compilation for every case
would take hours. That the later operations can be captured is checked of the reference itself (BLK-15).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detr_conformance.adapters.compilers import compiled
from detr_conformance.operations import BLOCKS, OPERATIONS
from detr_conformance.target import Target, TargetError
from detr_conformance.targets.reference import reference

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from detr_reference.deformable_attention.config import MSDeformAttnConfig
    from detr_reference.deformable_attention.module import MultiScaleDeformableAttention

GRAPHS = 24


def _require_compiler() -> None:
    compiler = os.environ.get("CXX", {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++"))
    if shutil.which(compiler) is None:
        raise TargetError(f"there is no C++ compiler {compiler!r}; install one or name another in CXX")


_require_compiler()


class Compiled:
    """A function that runs compiled or raises."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        import torch
        from torch._functorch import config as autograd

        # Otherwise a second backward through a retained graph raises. It is read again at each backward.
        autograd.donated_buffer = False
        self.name = function.__name__
        self.graphs = 0
        self.runs = 0
        self.function = torch.compile(function, fullgraph=True, dynamic=True, backend=self._backend)

    def _backend(self, graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        from torch._inductor.compile_fx import compile_fx

        self.graphs += 1
        compiled: Any = compile_fx(graph, inputs)

        def counted(*arguments: Any) -> Any:
            self.runs += 1
            return compiled(*arguments)

        return counted

    def __call__(self, *arguments: Tensor) -> Tensor:
        from torch._dynamo import config as dynamo
        from torch.fx.experimental import _config as symbols

        before = self.runs
        with (
            # axes that happen to be equal are not one symbol
            symbols.patch(use_duck_shape=False),  # type: ignore[attr-defined]
            dynamo.patch(recompile_limit=GRAPHS, fail_on_recompile_limit_hit=True),
        ):
            output = self.function(*arguments)
        if self.runs == before:
            raise RuntimeError(f"{self.name} did not reach compiled code")
        return output


@cache
def compiled_core() -> Compiled:
    from detr_reference.deformable_attention.core import ms_deform_attn

    return Compiled(ms_deform_attn)


def ms_deform_attn(
    value: Float[Tensor, "batch cell head channel"],
    spatial_shapes: Int[Tensor, "level 2"],
    level_start_index: Int[Tensor, " level"],
    sampling_locations: Float[Tensor, "batch query head level point 2"],
    attention_weights: Float[Tensor, "batch query head level point"],
) -> Float[Tensor, "batch query head*channel"]:
    """The compiled `detr_reference.ms_deform_attn`, on axes of at least two."""
    import torch.nn.functional as F

    from detr_reference.deformable_attention.core import check_levels

    check_levels(value, spatial_shapes, level_start_index)  # a compiled graph cannot read what tensors contain
    batch, cells, heads, channels = value.shape
    queries, _, levels, points = sampling_locations.shape[1:5]
    b, q, m, d, n, p = (max(0, 2 - size) for size in (batch, queries, heads, channels, levels, points))
    output = compiled_core()(
        F.pad(value, (0, d, 0, m, 0, n, 0, b)).contiguous(),
        F.pad(spatial_shapes, (0, 0, 0, n), value=1),  # an added level is one cell at the end
        F.pad(level_start_index, (0, n), value=cells),
        F.pad(sampling_locations, (0, 0, 0, p, 0, n, 0, m, 0, q, 0, b), value=-1).contiguous(),  # outside
        F.pad(attention_weights, (0, p, 0, n, 0, m, 0, q, 0, b)).contiguous(),
    )
    output = output.unflatten(-1, (heads + m, channels + d))
    return output[:batch, :queries, :heads, :channels].flatten(2)


def ms_deform_attn_module(
    config: MSDeformAttnConfig, state_dict: Mapping[str, Tensor] | None
) -> MultiScaleDeformableAttention:
    """The reference's module around the compiled core."""
    from detr_reference.deformable_attention.module import build

    return build(config, state_dict, ms_deform_attn)


EARLY = [operation for operation in BLOCKS if OPERATIONS[operation].chapters[0] < "10"]
blocks = compiled(Target("blocks", {each: reference(each) for each in EARLY}), backend="aot_eager", dynamic=False)

target = Target(
    name="reference-compiled",
    provides={
        "ms_deform_attn": ms_deform_attn,
        "ms_deform_attn_module": ms_deform_attn_module,
        **blocks.provides,
    },
    devices=("cpu",),
    dtypes=("float32",),
    features=("backward", "deterministic"),
    deviations=Path(str(files("detr_conformance") / "deviations" / "reference-compiled.toml")),
)
