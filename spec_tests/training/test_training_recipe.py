"""Recipes: read, checked, changed on the command line, and written beside a run."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from detr_reference.training.recipes.recipe import Recipe, names
from detr_reference.training.recipes.sections import DataRecipe, TrainingRecipe
from detr_reference.training.recipes.toml_text import toml_text
from helpers.tiny.training_cases import small_recipe

TEXT = """
name = "mine"
about = "a line"
published_ap = 49
[model]
name = "dino"
num_classes = 3
backbone_blocks = [1, 1, 1, 1]
[data]
set = "shapes"
images = 20
validation_images = 5
seed = 7
scales = [64, 96]
max_size = 128
evaluation_scale = 96
crop_scales = []
flip = 0
[training]
epochs = 3
batch_size = 4
learning_rate = 1e-3
backbone_learning_rate = 1e-3
drops = [2]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    return path


def test_a_file_is_read(file: Path) -> None:
    recipe = Recipe.read(file)
    assert (recipe.name, recipe.about, recipe.source, recipe.published_ap) == ("mine", "a line", "", 49.0)
    assert (recipe.model.name, recipe.model.settings["num_classes"]) == ("dino", 3)
    assert recipe.data == DataRecipe((64, 96), 128, 96, flip=0.0, set="shapes", images=20, validation_images=5, seed=7)
    assert recipe.training == TrainingRecipe(3, 4, 1e-3, 1e-3, drops=(2,))


def test_the_augmentation_has_the_numbers_of_the_recipe(file: Path) -> None:
    augmentation = Recipe.read(file).with_values({"data.crop_scales": "[70]", "data.crop_range": "[8, 9]"}).data
    made = dataclasses.asdict(augmentation.augmentation)
    assert made == {
        "scales": (64, 96),
        "max_size": 128,
        "crop_scales": (70,),
        "crop_range": (8, 9),
        "flip": 0.0,
        "evaluation_scale": 96,
    }


@pytest.mark.parametrize("name", names())
def test_an_installed_recipe_is_itself_again_after_writing(name: str) -> None:
    recipe = Recipe.read(name)
    assert recipe.name == name
    assert Recipe.from_dict(tomllib.loads(recipe.to_toml())) == recipe


def test_what_is_none_comes_back_as_none() -> None:
    for section in (TrainingRecipe, DataRecipe, Recipe):
        for each in dataclasses.fields(section):  # or to_dict, which leaves it out, would change it
            assert "None" not in str(each.type) or each.default is None, each.name
    recipe = small_recipe(clip_norm=0.1, ema_decay=0.9)
    changed = recipe.with_values({"training.clip_norm": "none", "training.ema_decay": "none"})
    assert (changed.training.clip_norm, changed.training.ema_decay) == (None, None)
    assert Recipe.from_dict(tomllib.loads(changed.to_toml())) == changed


def test_values_of_the_command_line() -> None:
    recipe = small_recipe().with_values(
        {
            "name": "other",
            "model.denoising": "none",  # a word of the model's own
            "model.num_queries": "7",
            "model.name": '"dino"',
            "training.epochs": "5",
            "training.learning_rate": "1",
            "training.autocast": "true",
            "training.drops": "[2, 3]",
        }
    )
    assert (recipe.name, recipe.model.settings["denoising"], recipe.model.settings["num_queries"]) == (
        "other",
        "none",
        7,
    )
    training = recipe.training
    assert (training.epochs, training.learning_rate, training.autocast) == (5, 1.0, True)
    assert training.drops == (2, 3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("training.epoch", "3", r"training\.epoch is unknown; did you mean epochs\?"),
        ("trainings.epochs", "3", r"trainings\.epochs is unknown; did you mean training"),
        ("epochs", "3", r"epochs is unknown; known are name, about, model"),
        ("training", "3", r"training must be a section \[training\], got 3"),
        ("losses.alpha", "3", r"losses\.alpha is unknown; known are model, data, training"),
        ("training.epochs", "3.5", r"training\.epochs must be a whole number, got 3\.5"),
        ("training.epochs", "3\nbatch_size = 2", r"training\.epochs must be a whole number, got '3\\nbatch"),
        ("training.epochs", "0", r"training: epochs must be at least 1, got 0"),
        ("training.checkpoint_steps", "0", r"checkpoint_steps must be at least 1, got 0"),
        ("training.learning_rate", "-1e-4", r"learning_rate must be greater than 0, got -0\.0001"),
        ("training.slow_learning_rate", "0", r"slow_learning_rate must be greater than 0, got 0"),
        ("training.learning_rate", "nan", r"training\.learning_rate must be finite, got nan"),
        ("training.weight_decay", "-1", r"weight_decay must be at least 0, got -1"),
        ("training.clip_norm", "0", r"clip_norm must be greater than 0, got 0"),
        ("training.autocast", "bf16", r"training\.autocast must be true or false, got 'bf16'"),
        ("training.drops", "[3, 2]", r"drops must be rising numbers of epochs from 1 up, got \[3, 2\]"),
        ("training.drops", "[0]", r"drops must be rising numbers of epochs from 1 up, got \[0\]"),
        ("training.drop_factor", "1.5", r"drop_factor must be greater than 0 and at most 1, got 1\.5"),
        ("training.ema_decay", "1", r"ema_decay must lie between 0 and 1, got 1"),
        ("training.accumulation", "4", r"accumulation 4 does not divide batch_size 2"),
        ("data.crop_range", "[1]", r"data\.crop_range must be a list of 2, got 1: \[1\]"),
        ("data.set", "voc", r"data: set must be one of .* got 'voc'"),
        ("data.set", "shapes", r"data: images must be at least 1, got 0"),
        (
            "data.images",
            "5",
            r"validation_images, seed and sides are of shapes; leave them out of set = 'coco'",
        ),
        ("data.seed", "5", r"seed and sides are of shapes"),
        ("data.sides", "[80, 96, 1]", r"seed and sides are of shapes"),
        ("training.seed", str(2**63), r"training: seed must be below 2\^63"),
        ("training.learning_rate", "1" + 400 * "0", r"training\.learning_rate must be finite"),
        ("data.scales", "[]", r"data: scales must name at least one length"),
        ("model.name", "dimo", r"there is no model 'dimo'; did you mean dino\?"),
        ("model.name", "3", r"model\.name must be one of detr, .*, got 3"),
        ("model.num_query", "3", r"model\.num_query is unknown; did you mean num_queries"),
        ("name", "3", r"^name must be a string, got 3"),
    ],
)
def test_a_mistake_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_recipe().with_values({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[data]", "[data"), r"mine\.toml: .*line"),
        (("epochs = 3", ""), r"mine\.toml: training\.epochs is missing"),
        (('about = "a line"', ""), r"mine\.toml: about is missing"),
        (('name = "dino"', ""), r"mine\.toml: model\.name must be one of detr, .* got None"),
        (("[training]", "[trainings]"), r"mine\.toml: trainings is unknown; did you mean training"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_the_file(file: Path, change: tuple[str, str], message: str) -> None:
    file.write_text(TEXT.replace(*change, 1))
    with pytest.raises(ValueError, match=message):
        Recipe.read(file)


def test_a_section_that_is_missing_is_named(file: Path) -> None:
    file.write_text(TEXT.partition("[training]")[0])
    with pytest.raises(ValueError, match=r"mine\.toml: training is missing"):
        Recipe.read(file)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no recipe 'detr-r50-50'; did you mean .*detr-r50-500"):
        Recipe.read("detr-r50-50")
    with pytest.raises(ValueError, match=r"cannot read .*other\.toml: No such file"):
        Recipe.read(tmp_path / "other.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"binary\.toml is not a text file"):
        Recipe.read(tmp_path / "binary.toml")


NASTY = 'quote " backslash \\ line\nbreak tab\t nul\x00 escape\x1b delete\x7f umlaut ü emoji 🦕'


def test_text_is_read_back_as_it_was() -> None:
    values: dict[str, Any] = {
        "text": NASTY,
        "number": 3,
        "small": 1e-05,
        "large": 1e22,
        "yes": True,
        "none": [],
        "list": [1, 2.5, "a", False],
        "section": {"text": NASTY, "list": [[1], []]},
        "empty": {},
    }
    read = tomllib.loads(toml_text(values))
    assert read == values
    assert isinstance(read["number"], int)
    with pytest.raises(TypeError, match="NoneType"):
        toml_text({"nothing": None})
