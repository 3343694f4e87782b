"""Compiled, exported and deployed blocks: what they compute, which sizes a graph takes, and wrong ones rejected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import detr_conformance
from detr_conformance import Target, compiled, exported, from_numpy
from detr_conformance.adapters.onnx_runtime import Graph
from detr_conformance.harness.subject import Settings
from detr_conformance.running.trial import trials
from detr_conformance.targets import numpy_core
from detr_conformance.targets.onnx_forms import by_gathering, by_grid_sample
from detr_conformance.targets.reference import reference
from detr_reference import FeedForward, FeedForwardConfig, refine_boxes

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

FEW = Settings("smoke", few_shapes=True, shrink=False)
CONFIG = FeedForwardConfig(embed_dim=4, feedforward_dim=6)


def some(**about: Any) -> Target:
    return Target("some", {name: reference(name) for name in ("feed_forward", "refine_boxes")}, **about)


def tensors(rows: int) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 4), torch.rand(rows, 4)


def failed(target: Target, clause: str) -> list[str]:
    return [test.name for test, _, failure in trials(target, {clause}, settings=FEW) if failure is not None]


@pytest.mark.parametrize("make", [lambda target: compiled(target, backend="aot_eager"), exported])
def test_functions_and_modules_compute_the_same(make: Callable[[Target], Target]) -> None:
    made = make(some())
    for rows in (3, 5):
        delta, boxes = tensors(rows)
        assert torch.allclose(
            made.provides["refine_boxes"](delta, boxes, eps=1e-3), refine_boxes(delta, boxes, eps=1e-3)
        )
    right = FeedForward(CONFIG).eval()
    x = torch.randn(2, 3, 4)
    assert torch.allclose(
        made.provides["feed_forward"](CONFIG, right.state_dict())(x, identity=x), right(x, identity=x)
    )


def test_what_is_compiled_has_gradients_and_what_is_exported_none() -> None:
    delta, boxes = tensors(3)
    for target, asks in ((compiled(some(), backend="aot_eager"), True), (exported(some()), False)):
        output = target.provides["refine_boxes"](delta.requires_grad_(), boxes, eps=1e-3)
        assert output.requires_grad is asks
        assert ("backward" in target.features) is asks


def test_a_graph_takes_the_sizes_that_it_was_made_for() -> None:
    graph = Graph(lambda tensors: [], [["a", 2], ["a"]], None)
    assert graph.takes([torch.ones(7, 2), torch.ones(7)])
    assert not graph.takes([torch.ones(7, 2), torch.ones(6)])
    assert not graph.takes([torch.ones(7, 3), torch.ones(7)])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_graphs_are_shared_by_sizes_and_parameters(runtime: str) -> None:
    pytest.importorskip(runtime)
    pytest.importorskip("onnxscript")
    target = getattr(detr_conformance, runtime)(some(), name="deployed")
    assert (target.name, target.features) == ("deployed", ())
    build: Any = target.provides["feed_forward"]
    for rows in (3, 5):
        right = FeedForward(CONFIG).eval()
        x = torch.randn(2, rows, 4)
        assert torch.allclose(build(CONFIG, right.state_dict())(x), right(x), atol=1e-6)
    (exported_once,) = build.graphs.values()
    assert [len(graphs) for graphs in exported_once.graphs.values()] == [1]


@pytest.mark.parametrize(
    ("core", "static"), [(by_gathering, ()), (by_grid_sample, (1, 2))], ids=["gather", "grid-sample"]
)
def test_an_exported_core_with_another_border_is_rejected(core: Any, static: Any) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    def clamped(value: Any, shapes: Any, starts: Any, locations: Any, weights: Any) -> Any:
        return core(value, shapes, starts, locations.clamp(0, 1), weights)

    wrong = detr_conformance.onnxruntime(Target("wrong", {"ms_deform_attn": clamped}, features=()), static=static)
    assert failed(wrong, "MSDA-15") == ["test_zeros_beyond_the_border"]


@pytest.mark.parametrize("make", [lambda target: compiled(target, backend="aot_eager"), exported])
def test_what_is_compiled_or_exported_from_a_wrong_one_is_rejected(make: Callable[[Target], Target]) -> None:
    def added(reference: Tensor, offsets: Tensor) -> Tensor:
        return reference + offsets.sigmoid()

    right, wrong = Target("right", {"refine_boxes": refine_boxes}), Target("wrong", {"refine_boxes": added})
    assert failed(make(right), "SEL-41") == []
    assert failed(make(wrong), "SEL-41") != []


def test_numpy_is_right_and_with_a_slope_of_the_other_axis_is_rejected() -> None:
    assert failed(numpy_core.target, "MSDA-29") == []

    def turned(*arguments: Any) -> Any:
        value, none, same, locations, weights = numpy_core.vjp(*arguments)
        return value, none, same, locations[..., ::-1], weights

    provides = {"ms_deform_attn": from_numpy(numpy_core.ms_deform_attn, turned)}
    assert failed(Target("wrong", provides), "MSDA-29") == ["test_gradient_of_the_locations"]


@pytest.mark.parametrize("jit", [True, False])
def test_jax_is_right_and_with_rows_for_columns_is_rejected(jit: bool) -> None:
    pytest.importorskip("jax")
    from detr_conformance.targets import jax_core

    def turned(value: Any, shapes: Any, starts: Any, locations: Any, weights: Any) -> Any:
        return jax_core.ms_deform_attn(value, shapes, starts, locations[..., ::-1], weights)

    assert failed(jax_core.jitted if jit else jax_core.eager, "MSDA-6") == []
    wrong = Target("wrong", {"ms_deform_attn": detr_conformance.from_jax(turned, jit=jit)})
    assert failed(wrong, "MSDA-6") == ["test_x_before_y"]
