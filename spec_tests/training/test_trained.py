"""Trained models are opened from what a run leaves and from published files, and say why where they cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from detr_reference.checkpoints import CheckpointError
from detr_reference.checkpoints.classes import COCO_IDS
from detr_reference.data.categories import Categories
from detr_reference.training.detection.coco_categories import published_categories
from detr_reference.training.detection.trained import open_trained, save_trained
from detr_reference.training.learning.models import make_model
from detr_reference.training.recipes.recipe import Recipe
from helpers import published_models as published
from helpers.tiny.trained_cases import RECORD, recipe_text, write_published

CATEGORIES = Categories.of([{"id": 4, "name": "tree"}, {"id": 9, "name": "house"}])


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A run's, of two classes."""
    file = tmp_path / "own.toml"
    file.write_text(recipe_text(num_classes=2))
    return Recipe.read(file)


def model_of(recipe: Recipe) -> Any:
    return make_model(recipe.model.name, recipe.model.settings)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_what_a_run_saves_is_opened_again(tmp_path: Path, recipe: Recipe) -> None:
    model = model_of(recipe)
    save_trained(tmp_path, model, recipe, CATEGORIES)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        trained = open_trained(path)
        assert same(trained.model.state_dict(), model.state_dict())
        assert trained.recipe == recipe
        assert trained.categories == CATEGORIES
        assert not trained.model.training
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", "model.json", "own.toml"}


def checkpoint(recipe: Recipe, **parts: Any) -> dict[str, Any]:
    return {"recipe": recipe.to_dict(), "categories": CATEGORIES.to_list(), "ema": None, "step": 7, **parts}


def test_a_checkpoint_is_opened_alone_and_by_its_folder(tmp_path: Path, recipe: Recipe) -> None:
    model = model_of(recipe)
    torch.save(checkpoint(recipe, model=model.state_dict()), tmp_path / "checkpoint.pt")
    for path in (tmp_path, tmp_path / "checkpoint.pt"):
        assert same(open_trained(path).model.state_dict(), model.state_dict())
        assert open_trained(path).categories == CATEGORIES


def test_the_moving_average_goes_before_the_last_step(tmp_path: Path, recipe: Recipe) -> None:
    model = model_of(recipe)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average.update_parameters(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    content = checkpoint(recipe, model=model.state_dict(), ema=average.state_dict())
    torch.save(content, tmp_path / "checkpoint.pt")
    assert same(open_trained(tmp_path).model.state_dict(), average.module.state_dict())


def test_a_finished_run_goes_before_its_checkpoint(tmp_path: Path, recipe: Recipe) -> None:
    first, last = model_of(recipe), model_of(recipe)
    torch.save(checkpoint(recipe, model=first.state_dict()), tmp_path / "checkpoint.pt")
    save_trained(tmp_path, last, recipe, CATEGORIES)
    assert same(open_trained(tmp_path).model.state_dict(), last.state_dict())


def test_a_published_file_computes_what_was_recorded(tmp_path: Path) -> None:
    """In float32, whatever the file has."""
    weights, recipe = tmp_path / "recorded.pth", tmp_path / "recorded.toml"
    torch.save({"model": published.state_dict(RECORD)}, weights)
    recipe.write_text(recipe_text(num_queries=RECORD["config"]["num_queries"]))
    trained = open_trained(weights, recipe=Recipe.read(recipe))
    pixels, mask = published.images()
    with torch.no_grad():
        outputs = trained.model(pixels.float(), mask)
    assert outputs["pred_boxes"].dtype == torch.float32
    assert max(published.furthest(RECORD, outputs).values()) < 1e-4


@pytest.mark.parametrize(("classes", "person", "last"), [(91, 1, 90), (80, 0, 79)])
def test_labels_of_published_files_are_cocos_categories(classes: int, person: int, last: int, tmp_path: Path) -> None:
    """By id of 91 channels, and of 80 by their order."""
    weights, _ = write_published(tmp_path)
    file = tmp_path / "changed.toml"
    file.write_text(recipe_text(num_classes=classes))
    categories = open_trained(weights, recipe=Recipe.read(file)).categories
    assert [categories.id_of(person), categories.id_of(last)] == [1, 90]
    assert [categories.names[person], categories.names[last]] == ["person", "toothbrush"]
    if classes == 80:
        assert tuple(categories.ids) == COCO_IDS


def test_names_are_those_of_cocos_annotations(shared_data: Path) -> None:
    annotations = json.loads((shared_data / "coco_eval" / "instances_val2014_100.json").read_text())
    assert Categories.of(annotations["categories"]) == published_categories(80)


def test_labels_of_other_data_sets_are_their_ids() -> None:
    """As the published code takes them."""
    assert [published_categories(5).id_of(label) for label in range(5)] == [*range(5)]


def test_a_published_file_needs_a_recipe(tmp_path: Path) -> None:
    weights, _ = write_published(tmp_path)
    with pytest.raises(CheckpointError, match=r"published\.pth does not say what model it holds.*name a recipe"):
        open_trained(weights)


def test_a_run_knows_its_recipe(tmp_path: Path, recipe: Recipe) -> None:
    save_trained(tmp_path, model_of(recipe), recipe, CATEGORIES)
    with pytest.raises(CheckpointError, match="knows its recipe"):
        open_trained(tmp_path, recipe=recipe)


def test_weights_that_do_not_fit_are_listed(tmp_path: Path, recipe: Recipe) -> None:
    weights, _ = write_published(tmp_path)
    with pytest.raises(CheckpointError, match=r"shape: class_embed\.weight is \(92, \d+\) and should be \(3, \d+\)"):
        open_trained(weights, recipe=recipe)


def test_a_run_whose_weights_do_not_fit(tmp_path: Path, recipe: Recipe) -> None:
    save_trained(tmp_path, model_of(recipe), recipe, CATEGORIES)
    description = json.loads((tmp_path / "model.json").read_text())
    description["recipe"]["model"]["num_classes"] = 5
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"does not fit its own recipe: .*class_embed"):
        open_trained(tmp_path)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "should hold"),
        ('{"recipe": {}, "categories": []}', "cannot be read"),
        ('{"recipe": 3, "categories": 4}', "cannot be read"),
    ],
)
def test_damaged_descriptions(description: str, message: str, tmp_path: Path, recipe: Recipe) -> None:
    save_trained(tmp_path, model_of(recipe), recipe, CATEGORIES)
    (tmp_path / "model.json").write_text(description)
    with pytest.raises(CheckpointError, match=message):
        open_trained(tmp_path)


def test_places_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has neither model\.safetensors nor checkpoint\.pt"):
        open_trained(tmp_path)
    with pytest.raises(CheckpointError, match="no file at"):
        open_trained(tmp_path / "nothing.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match="not a"):
        open_trained(tmp_path / "cut.pt")
