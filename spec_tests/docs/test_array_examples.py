"""docs/examples of kernels of other arrays: they load, and pass a clause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detr_conformance import Target
from detr_conformance.harness.subject import Settings
from detr_conformance.running.loaders import _import_file
from detr_conformance.running.trial import trials
from helpers.places import EXAMPLES

FEW = Settings(few_shapes=True, shrink=False)


def example(name: str) -> Any:
    return _import_file(EXAMPLES / name)


def passes(target: Target, clause: str) -> bool:
    found = list(trials(target, {clause}, settings=FEW))
    return bool(found) and all(failure is None for _, _, failure in found)


def test_a_kernel_of_numpy() -> None:
    kernel = example("numpy_kernel.py")
    assert kernel.forward.features == ()
    assert passes(kernel.forward, "MSDA-6")
    assert passes(kernel.target, "MSDA-27")


def test_a_kernel_of_jax() -> None:
    pytest.importorskip("jax")
    kernel = example("jax_kernel.py")
    assert passes(kernel.eager, "MSDA-6")
    assert passes(kernel.target, "MSDA-6")


def test_a_graph_in_a_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    import onnx

    helper, path = onnx.helper, tmp_path / "sum.onnx"
    names = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in ("a", "b", "sum")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["sum"])], "sum", names[:2], names[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    model = example("onnx_model.py")
    assert model.target.provides.keys() == {"ms_deform_attn"}
    run = model.in_file(path).provides["ms_deform_attn"]
    assert np.array_equal(run(torch.ones(3), torch.ones(3)), 2 * np.ones(3))
