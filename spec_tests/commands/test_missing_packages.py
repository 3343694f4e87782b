"""What a command says where the packages of its extra are not installed."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from detr_reference import cli
from helpers import commands

CALLS = [
    (("train", "smoke", "--output", "run"), "train needs pycocotools, pillow, tensorboard, matplotlib", "train"),
    (("evaluate", "runs/smoke"), "evaluate needs pycocotools, pillow", "train"),
    (("predict", "runs/smoke", "photo.jpg"), "predict needs pillow", "train"),
    (("bench", "reference"), "bench needs pytest-benchmark", "bench"),
    (
        ("check", "reference", "--curves", "curves.png", "--profile", "training"),
        "--curves needs matplotlib",
        "pictures",
    ),
]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that has none of the extras."""
    hidden = {"pycocotools", "PIL", "tensorboard", "matplotlib", "pytest_benchmark"}
    found = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in hidden else found(name, package)

    monkeypatch.setattr(cli.importlib.util, "find_spec", find_spec)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("call", "said", "extra"), CALLS, ids=lambda value: value[0] if isinstance(value, tuple) else ""
)
def test_a_command_without_its_extra_says_what_to_install(call: tuple[str, ...], said: str, extra: str) -> None:
    result = commands.run(*call)
    assert result.exit_code == 2
    (line,) = result.output.strip().splitlines()
    assert said in line
    assert line.endswith(f"not installed: pip install 'detr-spec[{extra}]'")


@pytest.mark.usefixtures("bare")
def test_recipes_are_listed_without_any_extra() -> None:
    assert commands.run("train", "--list").exit_code == 0
