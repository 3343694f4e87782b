"""Multi-scale deformable attention by gathering, exported by torch.onnx and run by OpenVINO."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

from detr_conformance.adapters.onnx_runtime import openvino
from detr_conformance.target import Target
from detr_conformance.targets.onnx_forms import by_gathering

core = Target("gather", {"ms_deform_attn": by_gathering}, features=("deterministic",))
gather = replace(openvino(core, "openvino-gather"), version=version("openvino"))
