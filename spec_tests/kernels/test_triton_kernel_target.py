"""The targets of the fast cores: what they claim, what they say where Triton is absent, and what they hold."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from detr_conformance.running.loaders import load_target
from detr_conformance.target import Target, TargetError

PLACE = "detr_conformance.targets.kernels"


def loaded(attribute: str, **environment: str) -> str:
    """What a fresh process prints of a target: its devices and dtypes."""
    program = (
        f"from {PLACE} import {attribute} as target\n"
        "import sys\n"
        "print(*target.devices, *target.dtypes, 'torch' in sys.modules, 'triton' in sys.modules)"
    )
    clean = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"} | environment
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_triton_kernel_claims_the_device_it_can_run_on() -> None:
    every_dtype = "float64 float32 float16 bfloat16"
    assert loaded("triton") == f"cuda {every_dtype} False False"
    assert loaded("triton", TRITON_INTERPRET="1") == f"cpu {every_dtype} False False"
    assert loaded("cpu", TRITON_INTERPRET="1") == f"cpu {every_dtype} False False"


def test_only_the_deterministic_target_claims_to_be() -> None:
    assert "deterministic" not in load_target(f"{PLACE}:triton").features
    assert "deterministic" in load_target(f"{PLACE}:triton_deterministic").features


def test_without_triton_the_target_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("detr_reference.kernels.triton")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "triton", None)
    core = load_target(f"{PLACE}:triton").provides["ms_deform_attn"]
    with pytest.raises(TargetError, match=r"needs the package 'triton', which is not installed; pip install"):
        core(*[torch.empty(0)] * 5)


def test_models_are_the_references_around_the_core() -> None:
    """Every deformable attention of a model holds the core, and nothing else holds one."""
    from detr_conformance.targets.kernels import AROUND, around
    from detr_reference.deformable_attention.config import MSDeformAttnConfig

    def core(value: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return value.new_zeros(value.shape[0], rest[2].shape[1], value.shape[2] * value.shape[3])

    module = around(core, "ms_deform_attn_module")(MSDeformAttnConfig(), None)
    assert module.core is core
    target = Target(name="stub", provides={operation: around(core, operation) for operation in AROUND})
    assert set(target.provides) == {"ms_deform_attn_module", "dino_decoder", "deformable_detr", "dino"}
