"""`detr-spec train`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from detr_reference.cli import main
from detr_reference.commands import train as command
from detr_reference.commands import training
from detr_reference.training.learning.learner import Learner
from detr_reference.training.recipes.recipe import Recipe, names
from helpers.tiny.tiny_training import tiny_recipe, write_tiny_images


def typed(*words: object) -> Result:
    return CliRunner().invoke(main, ["train", *map(str, words)])


def said(result: Result) -> str:
    """On one line: a narrow console breaks lines."""
    return " ".join(result.output.split())


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(tiny_recipe(data={"set": "shapes", "images": 4, "validation_images": 2}, epochs=1).to_toml())
    return path


SMALL = ("--set", "model.num_classes=3", "--device", "cpu", "--workers", "0", "--log-steps", "1")


def test_from_nothing_to_a_model(toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted, resumed as the message says, and then evaluated and used for a picture."""
    monkeypatch.chdir(tmp_path)
    step = Learner.step

    def interrupted(self: Learner, number: int, batches: Any) -> Any:
        if number == 2:
            raise KeyboardInterrupt
        return step(self, number, batches)

    given = (toml, *SMALL, "--set", "training.checkpoint_steps=1")
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", interrupted)
        stopped = typed(*given)
    assert stopped.exit_code == 130
    expected = f"detr-spec train {toml} --device cpu --workers 0 --log-steps 1 --set model.num_classes=3"
    assert f"{expected} --set training.checkpoint_steps=1 --resume" in stopped.stderr
    again = typed(*given)
    assert again.exit_code == 2
    assert "of a run that was begun: resume it" in said(again)

    result = typed(*given, "--resume")
    assert result.exit_code == 0, result.output
    assert "AP50" in result.output
    run = tmp_path / "runs" / "tiny"
    assert {each.name for each in run.iterdir()} == {
        *("checkpoint.pt", "recipe.toml", "log.jsonl", "tensorboard", "data"),
        *("model.safetensors", "model.json", "predictions.png", "curves.png"),
    }
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").open()] == [1, 2, 2]
    assert Recipe.read(run / "recipe.toml").training.checkpoint_steps == 1
    for name in ("predictions.png", "curves.png"):
        assert min(Image.open(run / name).size) > 100
    evaluated = CliRunner().invoke(main, ["evaluate", str(run), "--coco", str(run / "data"), "--device", "cpu"])
    assert evaluated.exit_code == 0, evaluated.output
    figures = [line for line in result.output.splitlines() if "│" in line]
    assert figures
    assert figures == [line for line in evaluated.output.splitlines() if "│" in line]


def test_own_images_and_an_own_kernel(tmp_path: Path) -> None:
    write_tiny_images(tmp_path)
    kernel = tmp_path / "kernel.py"
    kernel.write_text(
        "from detr_reference.deformable_attention.core import ms_deform_attn\n"
        "calls = []\n"
        "def attend(*tensors):\n"
        "    calls.append(1)\n"
        "    open(__file__ + '.called', 'w').close()\n"
        "    return ms_deform_attn(*tensors)\n"
    )
    recipe = tmp_path / "own.toml"
    recipe.write_text(tiny_recipe({"num_classes": 5}, epochs=1, batch_size=9, checkpoint_steps=None).to_toml())
    places = [
        *("--train-images", tmp_path / "train", "--train-annotations", tmp_path / "train.json"),
        *("--val-images", tmp_path / "val", "--val-annotations", tmp_path / "val.json"),
    ]
    given = (recipe, *SMALL[2:], *places, "--output", tmp_path / "run", "--ms-deform-attn", f"{kernel}:attend")
    result = typed(*given)
    assert result.exit_code == 0, result.output
    assert kernel.with_name("kernel.py.called").exists()
    categories = json.loads((tmp_path / "run" / "model.json").read_text())["categories"]
    assert [each["name"] for each in categories] == ["(0)", "one", "two", "(3)", "(4)"]

    (tmp_path / "train" / "3.png").write_bytes(b"no image")
    broken = typed(*given[:-2], "--output", tmp_path / "other")
    assert broken.exit_code == 2
    assert "image 3" in said(broken)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing",), "there is no recipe 'nothing'"),
        (("absent.toml",), "cannot read absent.toml"),
        (("dino-r50-4scale-12",), "needs images: give --coco DIR"),
        (("dino-r50-4scale-12", "--coco", "absent"), "absent"),
        (("dino-r50-4scale-12", "--coco", "a", "--val-images", "b"), "--coco names all images"),
        (("dino-r50-4scale-12", "--val-images", "b"), "belong together"),
        (("dino-r50-4scale-12", "--set", "training.epoch=3"), "did you mean epochs"),
        (("dino-r50-4scale-12", "--set", "training.epochs"), "--set needs KEY=VALUE"),
        (("dino-r50-4scale-12", "--resume"), "nothing to resume"),
        (("dino-r50-4scale-12", "--device", "gpu"), "no device is called 'gpu'"),
        (("dino-r50-4scale-12", "--backbone-weights", "absent.pth"), "no file of backbone weights at absent.pth"),
        (("dino-r50-4scale-12", "--ms-deform-attn", "nowhere"), "names no function; write package.module:function"),
        (("dino-r50-4scale-12", "--ms-deform-attn", "json:dumps_"), "cannot be imported: AttributeError"),
    ],
)
def test_mistakes(words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = typed(*words)
    assert result.exit_code == 2, result.output
    assert message in said(result)
    assert not isinstance(result.exception, ValueError)


def test_a_model_with_too_few_classes(toml: Path, tmp_path: Path) -> None:
    result = typed(toml, "--set", "model.num_classes=2", "--output", tmp_path / "run", "--device", "cpu")
    assert result.exit_code == 2
    assert "the model has 2 classes, but the annotations have 3 categories" in said(result)


def test_interrupted_before_anything_was_written(toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_and_show", interrupted)
    result = typed(toml, "--output", tmp_path / "run")
    assert result.exit_code == 130
    assert "there is nothing to resume" in result.stderr


def test_the_list_has_every_recipe_in_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = typed("--list")
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80
    for name in names():
        assert f"{name} " in result.output
    assert "49.0" in result.output


def test_a_dry_run_trains_nothing(toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(command, "_dry_run", lambda recipe, console: shown.append(recipe.training.epochs))
    monkeypatch.setattr(training, "train_and_show", None)
    assert typed(toml, "--dry-run", "--set", "training.epochs=7", "--output", tmp_path / "run").exit_code == 0
    assert shown == [7]
    assert not (tmp_path / "run").exists()
