"""The fast cores of `detr_reference.kernels`, alone and inside the reference's modules and models.

Each is imported when it is first called. The Triton kernel runs on a GPU; with TRITON_INTERPRET=1 in the environment
Triton interprets it on the CPU, slowly, and the target claims the CPU instead.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.stages import PARTS, STAGES
from detr_conformance.target import DTYPES, FEATURES, Target, TargetError
from detr_conformance.targets.lazily import when_called

if TYPE_CHECKING:
    from torch import Tensor, nn

AROUND = ("ms_deform_attn_module", "dino_decoder", "deformable_detr", "dino")
INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on")


def kernel(module: str, attribute: str = "ms_deform_attn") -> Callable[..., Tensor]:
    """A core of `detr_reference.kernels`, imported when it is first called.

    Raises:
        TargetError: the kernel needs a package that is not installed.
    """
    return when_called(attribute, lambda: _import_kernel(module, attribute))


def _import_kernel(module: str, attribute: str) -> Callable[..., Tensor]:
    try:
        return getattr(importlib.import_module(f"detr_reference.kernels.{module}"), attribute)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("detr_reference"):
            raise
        raise TargetError(
            f"this kernel needs the package {error.name!r}, which is not installed; "
            f"pip install 'detr-spec[{error.name}]' brings it (Linux alone)"
        ) from error


def around(core: Callable[..., Tensor], operation: str) -> Callable[..., nn.Module]:
    """The reference's factory of a module or model, with this core in every deformable attention."""

    def build(config: Any, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        module: nn.Module = resolve(OPERATIONS[operation].reference)(config, state_dict, core)
        return module

    return build


def _target(name: str, core: Callable[..., Tensor], devices: tuple[str, ...], features: tuple[str, ...]) -> Target:
    return Target(
        name=name,
        provides={"ms_deform_attn": core, **{operation: around(core, operation) for operation in AROUND}},
        devices=devices,
        dtypes=DTYPES,
        features=features,
        stages={**STAGES["deformable_detr"], **STAGES["dino"], **PARTS["dino"]},
    )


cpu = _target("cpu-kernel", kernel("cpu"), ("cpu",), FEATURES)

# Its value gradient is summed by atomic additions unless torch asks for deterministic algorithms.
TRITON_DEVICES = ("cpu",) if INTERPRETED else ("cuda",)
triton = _target(
    "triton-kernel",
    kernel("triton_kernel"),
    TRITON_DEVICES,
    tuple(feature for feature in FEATURES if feature != "deterministic"),
)
triton_deterministic = _target(
    "triton-kernel-deterministic",
    kernel("triton_kernel", "ms_deform_attn_deterministic"),
    TRITON_DEVICES,
    FEATURES,
)
