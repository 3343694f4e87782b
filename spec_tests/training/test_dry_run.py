"""The dry run: its counts against hand-made ones, its projections against what a larger image really takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from detr_reference.training.dry_run import plan as module
from detr_reference.training.dry_run.machine import Machine, assumed_machine
from detr_reference.training.dry_run.plan import DryRun, dry_run, trace_of_size, trained_model
from detr_reference.training.dry_run.step_cost import CostMeter, Trace, cost_of_pixels, traced
from detr_reference.training.dry_run.tables import show, show_trials
from detr_reference.training.dry_run.trial_steps import Trial, trial_steps
from detr_reference.training.recipes.recipe import Recipe
from helpers.places import RUNS

SAVED = RUNS / "dry-run.json"
SIZES = ((128, 128), (128, 192), (192, 192))  # two cells at least in the smallest maps
SMALL = {
    "model.num_queries": "10",
    "model.embed_dim": "16",
    "model.num_heads": "2",
    "model.feedforward_dim": "16",
    "model.num_encoder_layers": "1",
    "model.num_decoder_layers": "1",
    "model.backbone_blocks": "[1, 1, 1, 1]",
    "model.backbone_width": "2",
    "data.scales": "[100]",
    "data.max_size": "160",
}


def small(name: str = "dino-r50-4scale-12", **changes: str) -> Recipe:
    values = {**SMALL, **({"model.neck_groups": "4"} if "detr-r50-3" not in name else {})}
    return Recipe.read(name).with_values({**values, **{k.replace("__", "."): v for k, v in changes.items()}})


@pytest.fixture(scope="module")
def found() -> DryRun:
    """Of a small model, from smaller images than the package takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SIZES", SIZES)
        return dry_run(small(training__ema_decay="0.99"))


def test_a_linear_layer_counted_by_hand() -> None:
    """out = x W^T of 5 rows, 3 -> 4: 2 * 5 * 3 * 4 operations, and as many for each gradient, of x and of W."""
    layer, x = nn.Linear(3, 4, bias=False), torch.randn(5, 3, requires_grad=True)
    cost = traced(layer, [x], lambda: layer(x).sum()).cost
    assert cost.flops == 3 * 2 * 5 * 3 * 4
    assert cost.kept == 4  # the sum alone: its gradient does not need what was summed
    assert layer.weight.grad is None


def test_what_is_kept_and_what_is_held_at_the_peak() -> None:
    """relu keeps its result; a further tensor lives for a moment only."""
    x = torch.randn(1000, requires_grad=True)
    meter = CostMeter()
    meter.exclude([x])
    with meter:
        kept = x.relu()
        kept + 1
    assert (meter.now, meter.held[0], max(meter.held), meter.flops) == (4000, 4000, 8000, 0)
    del kept
    assert meter.now == 0


def test_checkpointing_keeps_less_and_computes_more() -> None:
    layer, x = nn.Linear(50, 50, bias=False), torch.randn(50, 50, requires_grad=True)

    def deep(inputs: torch.Tensor) -> torch.Tensor:
        for _ in range(4):
            inputs = linear(inputs, layer.weight).tanh()
        return inputs

    plain = traced(layer, [x], lambda: deep(x).sum()).cost
    again = traced(layer, [x], lambda: checkpoint(deep, x, use_reentrant=False).sum()).cost
    assert again.kept < plain.kept / 2
    assert again.flops == plain.flops * 4 // 3


@pytest.mark.parametrize(("name", "checkpointing"), [("dino-r50-4scale-12", "true"), ("detr-r50-300", "false")])
def test_small_images_tell_of_larger_ones(name: str, checkpointing: str) -> None:
    recipe = small(name, training__activation_checkpointing=checkpointing)
    sizes = SIZES if name.startswith("detr") else SIZES[:2]
    model = trained_model(recipe)
    traces = {height * width: trace_of_size(recipe, model, (height, width)) for height, width in sizes}
    larger = trace_of_size(recipe, model, (256, 320))
    assert cost_of_pixels(traces, 256 * 320) == larger.cost


def test_models_that_do_other_things_with_larger_images_are_refused() -> None:
    traces = {1: Trace((4, 8), 1, 5), 2: Trace((4, 8, 4), 1, 5)}
    with pytest.raises(ValueError, match="other things with larger images"):
        cost_of_pixels(traces, 3)


def test_the_peak_of_a_large_image_is_at_another_operation() -> None:
    """10 + x and 2 x bytes: the first is more up to x = 10."""
    traces = {1: Trace((11, 2), 2, 1), 2: Trace((12, 4), 2, 2)}
    assert cost_of_pixels(traces, 4) == (8, 14, 4)
    assert cost_of_pixels(traces, 20) == (40, 40, 20)


def test_memory_and_time_are_put_together_as_said(found: DryRun) -> None:
    model = trained_model(small())
    everything = sum(each.numel() for each in model.parameters())
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    memory = found.memory
    assert (memory.parameters, memory.average) == (4 * everything, 4 * everything)
    assert (memory.gradients, memory.optimizer, memory.buckets) == (4 * trained, 8 * trained, 4 * trained)
    assert memory.activations == 2 * found.cost.peak  # 16 images on 8 GPUs
    assert memory.activations_padded > memory.activations * 1.2
    assert found.size == (100, 160)
    assert sum(group.parameters for group in found.groups) == trained == everything - found.frozen
    schedule = found.schedule
    assert schedule.steps_per_epoch == 118_287 // 8 // 2
    images = 12 * schedule.steps_per_epoch * 16
    assert found.seconds == pytest.approx(images * found.cost.flops / (8 * 19.5e12 * 0.3))
    assert schedule.rates["main"] == pytest.approx([1e-4] * 11 + [1e-5])
    assert schedule.rates["backbone"] == pytest.approx([1e-5] * 11 + [1e-6])
    json.dumps(found.to_dict(), allow_nan=False)


def test_tables_say_that_they_project(found: DryRun, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=120)
    show(found, console)
    show_trials(trial_steps(small(), 1, torch.device("cpu")), console)
    show_trials([Trial(43.21, 41.27, 3 * 2**30, 145.17, 31.14)], console)
    shown = " ".join(capsys.readouterr().out.split())
    for said in (
        "1 to 11",
        "118,287 images an epoch, 16 a step (2 on each of 8 GPUs): 7,392 steps an epoch, 88,704 in all",
        "memory of one GPU, projected",
        "time, projected",
        "NVIDIA A100 40 GB",
        "30% of 19.5 x 10^12 operations a second (float32)",
        "projections, not measurements",
        "measured here",
        "│ 1 │ 145.17 │ 31.1 │ 43.2 │ 41.3 │ 3.00 GiB │",
    ):
        assert said in shown


def test_what_is_assumed_can_be_changed() -> None:
    recipe = Recipe.read("dino-r50-4scale-12")
    assert assumed_machine(recipe, {"gpus": "4", "gpu": "X", "utilisation": "0.2"}) == Machine("X", 4, utilisation=0.2)
    assert assumed_machine(recipe.with_values({"training.autocast": "true"})).teraflops == 312
    for values, message in (
        ({"gpu_s": "4"}, "gpu_s is unknown; did you mean gpus"),
        ({"gpus": "four"}, "gpus must be a number, got 'four'"),
        ({"gpus": "0"}, "gpus must be at least 1, got 0"),
        ({"utilisation": "30"}, "utilisation is a share of the peak, at most 1, got 30.0"),
        ({"teraflops": "inf"}, "teraflops must be positive, got inf"),
    ):
        with pytest.raises(ValueError, match=message):
            assumed_machine(recipe, values)
    with pytest.raises(ValueError, match="16 images cannot be shared evenly among 5 processes"):
        dry_run(small(), Machine(gpus=5))


@pytest.fixture
def saved() -> dict[str, Any]:
    return json.loads(SAVED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["as published", "with activation checkpointing"])
def test_the_saved_projection_is_what_one_large_image_takes(saved: dict[str, Any], name: str) -> None:
    projected, measured = saved["projected"][name], saved["measured"][name]
    assert projected["size"] == [800, 1333]
    for kind in ("kept", "peak", "flops"):
        assert projected["cost"][kind] == pytest.approx(measured[kind], rel=0.01)


def test_the_saved_run_is_of_the_published_recipe(saved: dict[str, Any]) -> None:
    projected = saved["projected"]["as published"]
    groups = {group["name"]: group for group in projected["groups"]}
    assert sum(group["parameters"] for group in groups.values()) == 46_670_782
    assert projected["frozen"] == 222_400
    assert {name: group["learning_rate"] for name, group in groups.items()} == {"main": 1e-4, "backbone": 1e-5}
    assert (projected["schedule"]["epochs"], projected["schedule"]["steps_per_epoch"]) == (12, 7392)
    assert len(saved["steps"]) == 2
    held = projected["memory"]["parameters"] + projected["memory"]["gradients"]
    for step in saved["steps"]:
        assert step["peak"] > held + projected["cost"]["kept"]
