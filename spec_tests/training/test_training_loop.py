"""What a step does, in what order images come, how the learning rate goes, and what is logged."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, LinearLR, MultiStepLR

from detr_reference.data.batches import Batch, collate
from detr_reference.data.loading import TrainingImages
from detr_reference.training.distributed import Processes, processes
from detr_reference.training.learning.initial_model import initial_model
from detr_reference.training.learning.learner import Learner, TrainingError
from detr_reference.training.learning.models import MODELS
from detr_reference.training.learning.objective import loss_of
from detr_reference.training.learning.schedule import rate_schedule
from detr_reference.training.logs import RunLog
from detr_reference.training.loop import train
from detr_reference.training.progress import RunProgress
from detr_reference.training.sampling import EpochBatches
from helpers.tiny.tiny_training import tiny_images, tiny_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
ALONE = Processes(torch.device("cpu"))


@pytest.fixture(scope="module")
def batches(tiny_folder: Path) -> list[Batch]:
    images = TrainingImages(tiny_images(tiny_folder)[0], tiny_recipe().data.augmentation, seed=0)
    return [collate([images[first], images[first + 1]]) for first in (0, 3)]


STILL = {"denoising": "none", "dropout": 0.0}


def learner_of(steps: int = 4, **training: Any) -> Learner:
    recipe = tiny_recipe(STILL, **training)
    return Learner(MODELS["dino"], initial_model(recipe), recipe, ALONE, steps)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def test_a_step_by_hand(batches: list[Batch]) -> None:
    """AdamW's first step moves each number by its learning rate against the sign of the gradient, and decays it."""
    learner = learner_of(warmup_steps=0, clip_norm=0.1)
    before = {name: each.detach().clone() for name, each in learner.model.named_parameters()}
    loss, losses = loss_of(MODELS["dino"], learner.model, batches[0])
    loss.backward()
    own = gradients(learner.model)
    norm = math.sqrt(sum(float(each.double().square().sum()) for each in own.values()))
    result = learner.step(1, batches[:1])
    assert result.loss == pytest.approx(float(loss.detach()))
    assert result.losses == pytest.approx({name: float(each.detach()) for name, each in losses.items()})
    assert result.gradient_norm == pytest.approx(norm, rel=1e-4)
    assert result.rates == {"main": 1e-3, "backbone": 1e-4}
    scale = 0.1 / norm
    assert scale < 1
    for name, parameter in learner.model.named_parameters():
        if name not in own:
            assert torch.equal(parameter, before[name])
            continue
        rate, clipped = (1e-4 if name.startswith("backbone") else 1e-3), own[name] * scale
        moved = before[name] * (1 - rate * 1e-4) - rate * clipped / (clipped.abs() + 1e-8)
        torch.testing.assert_close(parameter, moved, rtol=1e-4, atol=1e-6)


def test_gradients_of_batches_are_averaged(batches: list[Batch]) -> None:
    both = learner_of(clip_norm=None)
    found = both.step(1, batches)
    alone = [learner_of(clip_norm=None) for _ in batches]
    results = [each.step(1, [batch]) for each, batch in zip(alone, batches, strict=True)]
    first, second = (gradients(each.model) for each in alone)
    for name, gradient in gradients(both.model).items():
        torch.testing.assert_close(gradient, (first[name] + second[name]) / 2, rtol=1e-4, atol=1e-6)
    assert found.loss == pytest.approx(sum(each.loss for each in results) / 2, rel=1e-5)
    assert found.losses["loss_giou"] == pytest.approx(sum(each.losses["loss_giou"] for each in results) / 2, rel=1e-5)


def test_the_average_follows(batches: list[Batch]) -> None:
    learner = learner_of(ema_decay=0.75, warmup_steps=0)
    learner.step(1, batches[:1])
    first = learner.model.class_embed[0].weight.detach().clone()
    learner.step(2, batches[:1])
    second = learner.model.class_embed[0].weight.detach()
    assert learner.best_model is not learner.model
    average = learner.best_model.class_embed[0].weight
    torch.testing.assert_close(average, 0.75 * first + 0.25 * second)
    assert learner_of(ema_decay=None).best_model.training


def test_autocast_computes_in_half_and_learns_in_whole(batches: list[Batch]) -> None:
    whole, half = learner_of(), learner_of(autocast=True)
    seen = []
    half.model.transformer.encoder.layers[0].register_forward_hook(lambda *each: seen.append(each))
    linear = half.model.class_embed[0]
    linear.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    expected, found = whole.step(1, batches[:1]), half.step(1, batches[:1])
    assert seen[-1] == torch.bfloat16
    assert found.loss == pytest.approx(expected.loss, rel=0.05)
    assert found.loss != expected.loss
    assert {each.dtype for each in gradients(half.model).values()} == {torch.float32}


def tensors_of(learner: Learner) -> list[torch.Tensor]:
    state = learner.state()
    return [*state["model"].values(), *state["ema"].values()]


def test_recomputed_layers_learn_the_same(batches: list[Batch]) -> None:
    kept, again = learner_of(), learner_of(activation_checkpointing=True)
    for number in (1, 2):
        assert kept.step(number, batches[:1]) == again.step(number, batches[:1])
    for own, other in zip(tensors_of(kept), tensors_of(again), strict=True):
        assert torch.equal(own, other)
    first, second = (each.best_model.eval()(*batches[1][:2])["pred_boxes"] for each in (kept, again))
    assert torch.equal(first, second)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_named(number: float, batches: list[Batch]) -> None:
    learner = learner_of()
    learner.model.class_embed[0].bias.data[0] = number
    with pytest.raises(TrainingError, match=r"^step 17: images \[1, 2\]: .*not finite"):
        learner.step(17, batches[:1])


def test_a_gradient_that_is_not_finite_is_named(batches: list[Batch]) -> None:
    learner = learner_of()
    before = learner.model.class_embed[0].bias.detach().clone()
    learner.model.class_embed[0].bias.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingError, match=r"^step 3: the gradient is not finite; the losses were .*loss_class \d"):
        learner.step(3, batches[:1])
    assert torch.equal(learner.model.class_embed[0].bias, before)


@pytest.mark.parametrize("warmup", [0, 3])
def test_the_schedule_is_that_of_torch(warmup: int) -> None:
    def optimizer() -> torch.optim.SGD:
        return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1e-3, 1e-4)])

    own, theirs = optimizer(), optimizer()
    schedule = rate_schedule(own, steps_per_epoch=5, drops=(2, 3), drop_factor=0.1, warmup_steps=warmup)
    parts: list[Any] = [MultiStepLR(theirs, [10, 15], 0.1)]
    if warmup:
        parts.append(LinearLR(theirs, 1 / warmup, total_iters=warmup - 1))
    expected = ChainedScheduler(parts)
    for step in range(18):
        for group, other in zip(own.param_groups, theirs.param_groups, strict=True):
            assert group["lr"] == pytest.approx(other["lr"]), step
        own.step()
        theirs.step()
        schedule.step()
        expected.step()
    assert own.param_groups[0]["lr"] == pytest.approx(1e-5)


def order_of(rank: int = 0, count: int = 1, images: int = 23, **changes: int) -> EpochBatches:
    settings = {"batch_size": 4, "accumulation": 1, "seed": 1, "epoch": 0, **changes}
    return EpochBatches(range(images), Processes(torch.device("cpu"), rank, count), **settings)


def test_each_image_once_an_epoch_in_an_order_of_its_own() -> None:
    first = [index for batch in order_of() for index in batch]
    assert len(first) == len(set(first)) == 20
    assert first != sorted(first)
    assert first == [index for batch in order_of() for index in batch]
    for changed in ({"epoch": 1}, {"seed": 2}):
        assert first != [index for batch in order_of(**changed) for index in batch]


@pytest.mark.parametrize(("count", "accumulation"), [(1, 2), (2, 1), (2, 2), (4, 1)])
def test_a_step_has_the_same_images_however_they_are_shared(count: int, accumulation: int) -> None:
    expected = [sorted(batch) for batch in order_of()]
    shares = [list(order_of(rank, count, accumulation=accumulation)) for rank in range(count)]
    steps = [
        sorted(index for share in shares for batch in share[first : first + accumulation] for index in batch)
        for first in range(0, len(shares[0]), accumulation)
    ]
    assert steps == expected


def test_what_was_done_is_left_out() -> None:
    whole, rest = list(order_of(accumulation=2)), order_of(accumulation=2, done=3)
    assert list(rest) == whole[6:]
    assert len(rest) == len(whole) - 6
    assert not list(order_of(done=5))


def test_batches_that_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match="multiple of 6"):
        order_of(count=3, accumulation=2)
    with pytest.raises(ValueError, match="3 images are too few for a batch of 4"):
        order_of(images=3)


def test_the_log_of_a_run(tiny_folder: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = io.StringIO()
    result = train(tiny_recipe(), *tiny_images(tiny_folder), tmp_path, console=Console(file=shown, width=200))
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    kinds = [(each["kind"], each["step"], each["epoch"]) for each in records]
    epoch = [("train", step, 1) for step in range(1, 5)]
    assert kinds[:5] == [*epoch, ("evaluation", 4, 1)]
    assert kinds[-1] == ("evaluation", 8, 2)
    assert [each["learning_rate"] for each in records if each["kind"] == "train"] == pytest.approx(
        [5e-4, *[1e-3] * 3, *[1e-4] * 4]
    )
    first = records[0]
    assert {"loss_class", "loss_bbox_0", "loss_giou_enc", "loss_class_dn"} <= first["losses"].keys()
    assert first["images_per_second"] > 0
    assert first["gradient_norm"] > 0
    assert {name: records[-1][name] for name in result.figures.named()} == result.figures.named()
    assert sorted(each["image_id"] for each in result.detections) == [1, 2, 3]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [each.step for each in board.Scalars("train/loss")] == list(range(1, 9))
    assert board.Scalars("loss/loss_class")[0].value == pytest.approx(first["losses"]["loss_class"])
    assert [each.step for each in board.Scalars("evaluation/AP")] == [4, 8]
    lines = shown.getvalue().splitlines()
    assert "epoch 1/2, step 1/8: loss" in lines[0]
    assert lines[-2].startswith("epoch 2/2, step 8/8: loss")
    assert lines[-1].startswith("epoch 2: AP ")
    assert not any("\x1b" in line for line in lines)


def test_a_log_goes_on_without_what_comes_again(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write({"kind": "train", "step": step, "epoch": 1, "loss": 1.0})
        log.write({"kind": "evaluation", "step": 3, "epoch": 1, "AP": 0.5})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    before = (tmp_path / "log.jsonl").read_text().splitlines()
    for step, kept in ((4, 4), (3, 3), (2, 2)):
        with RunLog(tmp_path, step):
            assert (tmp_path / "log.jsonl").read_text().splitlines() == before[:kept]
    with RunLog(tmp_path):
        assert not (tmp_path / "log.jsonl").read_text()


def test_a_log_has_no_number_that_json_does_not_know(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log, pytest.raises(ValueError, match="JSON"):
        log.write({"kind": "train", "step": 1, "epoch": 1, "loss": math.nan})


def test_a_bar_on_a_terminal() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=80)
    with RunProgress(console, epochs=12, steps=87960, step=4) as progress:
        progress.at(5004, 2, 31.82, 1e-4, 12.5)
        progress.say("epoch 1: AP 0.5")
    assert "epoch 2/12 " in shown.getvalue()
    assert " 5004/87960 loss 31.82, lr 1.0e-04, 12.5 images/s " in shown.getvalue()


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="no device is called 'gpu'"), processes("gpu"):
        pass
    with pytest.raises(ValueError, match="no GPU 99"), processes("cuda:99"):
        pass
