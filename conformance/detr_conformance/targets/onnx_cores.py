"""Multi-scale deformable attention exported by torch.onnx and run by ONNX Runtime, in both forms of `onnx_forms`."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from detr_conformance.adapters.onnx_runtime import onnxruntime
from detr_conformance.target import Target
from detr_conformance.targets.onnx_forms import by_gathering, by_grid_sample


def _core(name: str, function: Any, static: tuple[int, ...] = ()) -> Target:
    core = Target(name, {"ms_deform_attn": function}, features=("deterministic",), version=version("onnxruntime"))
    made = onnxruntime(core, name, static=static)
    return replace(made, deviations=Path(str(files("detr_conformance") / "deviations" / "onnxruntime.toml")))


grid_sample = _core("onnxruntime-grid-sample", by_grid_sample, static=(1, 2))
gather = _core("onnxruntime-gather", by_gathering)
