"""A run that is stopped at any moment goes on from its last checkpoint, and does what it would have done."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_reference.checkpoints.errors import CheckpointError
from detr_reference.data.coco import CocoDetection
from detr_reference.training.learning.learner import Learner
from detr_reference.training.loop import train
from detr_reference.training.run import Run
from detr_reference.training.state import read_checkpoint
from helpers.fork_server import fork_server
from helpers.tiny.tiny_training import KILLED, tiny_images, tiny_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
Images = tuple[CocoDetection, CocoDetection]


@pytest.fixture(scope="module")
def images(tiny_folder: Path) -> Images:
    return tiny_images(tiny_folder)


@pytest.fixture(scope="module")
def whole(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    output = tmp_path_factory.mktemp("whole")
    train(tiny_recipe(**KILLED), *images, output)
    return output


def log_of(output: Path) -> list[dict[str, Any]]:
    """All but the speed."""
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in each.items() if name != "images_per_second"} for each in records]


def tensors(value: Any, name: str = "") -> dict[str, Any]:
    """Everything in nested containers, by its place."""
    if isinstance(value, dict):
        parts: Any = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return {name: value}
    return {place: leaf for key, part in parts for place, leaf in tensors(part, f"{name}.{key}").items()}


def saved(output: Path) -> dict[str, Any]:
    """All but Python's random numbers, from which the run-time checks of these tests draw."""
    content = tensors(vars(read_checkpoint(output / "checkpoint.pt")))
    return {name: value for name, value in content.items() if ".python." not in name}


def assert_same_run(one: Path, other: Path) -> None:
    assert log_of(one) == log_of(other)
    first, second = saved(one), saved(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        same = torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
        assert same, name


def trained(tiny_folder: Path, output: Path) -> None:
    torch.set_num_threads(1)
    train(tiny_recipe(**KILLED), *tiny_images(tiny_folder), output, resume=(output / "checkpoint.pt").exists())


def steps_logged(output: Path) -> list[int]:
    """Of whole lines: a killed process may leave a part of one."""
    log = output / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line)["step"] for line in lines if line[-1] == "\n"]


def test_killed_at_random_moments(tiny_folder: Path, whole: Path, tmp_path: Path) -> None:
    """Real processes, and SIGKILL: somewhere in a step, in an evaluation, or while a checkpoint is written."""
    drawn, context, checkpoint = random.Random(0), fork_server(), tmp_path / "checkpoint.pt"
    for _ in range(3):
        process = context.Process(target=trained, args=(tiny_folder, tmp_path))
        lines = len(steps_logged(tmp_path)) + drawn.randint(1, 2)
        process.start()
        while len(steps_logged(tmp_path)) < lines:
            assert process.is_alive(), "it ended before it was killed"
            time.sleep(0.001)
        time.sleep(drawn.random() * 0.03)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        step = read_checkpoint(checkpoint).step if checkpoint.exists() else 0
        assert max(steps_logged(tmp_path)) - step <= KILLED["checkpoint_steps"]
    process = context.Process(target=trained, args=(tiny_folder, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert_same_run(whole, tmp_path)


class Stopped(Exception):
    """Stands for whatever ends a process."""


def stop(*_: Any) -> Any:
    raise Stopped


def stop_at(step: int) -> Any:
    """`Learner.step`, but the process ends with this one."""
    original = Learner.step
    return lambda learner, number, batches: stop() if number == step else original(learner, number, batches)


def test_stopped_in_a_step_and_in_an_evaluation(
    images: Images, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints are written after the steps 3, 4 (an epoch), 6, 8 (an epoch), 9 and 12."""
    recipe, checkpoint = tiny_recipe(**KILLED), tmp_path / "checkpoint.pt"
    for name, owner, stand_in, step in (("step", Learner, stop_at(8), 6), ("evaluate", Run, stop, 8)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, stand_in)
            with pytest.raises(Stopped):
                train(recipe, *images, tmp_path, resume=checkpoint.exists())
        assert read_checkpoint(checkpoint).step == step
        torch.manual_seed(123)  # whatever the process did before
    train(recipe, *images, tmp_path, resume=True)
    assert_same_run(whole, tmp_path)


def test_a_finished_run_is_only_evaluated_again(images: Images, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = log_of(whole)
    monkeypatch.setattr(Learner, "step", None)
    result = train(tiny_recipe(**KILLED), *images, whole, resume=True)
    assert log_of(whole) == before
    assert result.figures.named()["AP"] == before[-1]["AP"]


def test_another_recipe_is_refused(images: Images, whole: Path) -> None:
    changed = tiny_recipe(**KILLED | {"epochs": 5, "ema_decay": 0.5})
    with pytest.raises(CheckpointError, match=r"training\.ema_decay was 0\.9 and is 0\.5; training\.epochs was 3 and"):
        train(changed, *images, whole, resume=True)


def test_other_images_are_refused(images: Images, whole: Path) -> None:
    _, validation = images
    with pytest.raises(CheckpointError, match="other training images"):
        train(tiny_recipe(**KILLED), validation, validation, whole, resume=True)


def test_a_run_is_not_overwritten(images: Images, whole: Path) -> None:
    with pytest.raises(CheckpointError, match="is of a run that was begun: resume it"):
        train(tiny_recipe(**KILLED), *images, whole)


def test_nothing_to_resume(images: Images, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nothing to resume"):
        train(tiny_recipe(), *images, tmp_path, resume=True)
