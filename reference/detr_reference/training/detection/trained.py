"""A trained model, ready to detect: written at the end of a run, and opened from a run or from a published file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detr_reference.checkpoints.errors import CheckpointError
from detr_reference.checkpoints.loading import converted
from detr_reference.checkpoints.reading import read_file
from detr_reference.checkpoints.unwrapping import unwrapped
from detr_reference.data.categories import Categories
from detr_reference.training.atomic import whole_file
from detr_reference.training.detection.coco_categories import published_categories
from detr_reference.training.learning.models import Trainable, make_model, model_config, trainable_named
from detr_reference.training.recipes.recipe import Recipe

WEIGHTS, DESCRIPTION, CHECKPOINT = "model.safetensors", "model.json", "checkpoint.pt"
LARGEST_DESCRIPTION = 16 << 20


@dataclass(frozen=True)
class Trained:
    """A model in evaluation mode and what its numbers mean.

    Attributes:
        model: on its device, float32.
        recipe: how it was trained, and with it the size of images that it expects.
        categories: what its labels are.
    """

    model: nn.Module
    recipe: Recipe
    categories: Categories

    @property
    def trainable(self) -> Trainable:
        """How its outputs become detections."""
        return trainable_named(self.recipe.model.name)


def save_trained(folder: Path, model: nn.Module, recipe: Recipe, categories: Categories) -> None:
    """Writes model.safetensors, the state dict, and model.json, the recipe and categories; each at once or not at all.

    Args:
        folder: of the run; it exists.
        model: the reference's own, not wrapped for several processes or for averaging.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    description = {"recipe": recipe.to_dict(), "categories": categories.to_list()}
    for name, content in ((WEIGHTS, save(tensors)), (DESCRIPTION, json.dumps(description, indent=1).encode())):
        with whole_file(folder / name) as file:
            file.write(content)


def open_trained(
    path: str | os.PathLike[str], *, recipe: Recipe | None = None, device: str | torch.device = "cpu"
) -> Trained:
    """The model in a run's folder, a checkpoint of a run, or a published file.

    Args:
        path: a folder with model.safetensors and model.json, or else checkpoint.pt; one of these files; or a `.pth` or
            `.safetensors` file of the official code, detrex or transformers.
        recipe: says what model a published file holds; a run knows by itself.

    Raises:
        CheckpointError: nothing can be read there, or it does not fit; the message says why.
    """
    path = Path(path)
    if path.is_dir():
        path = _in_the_folder(path)
    if path.name == WEIGHTS and (path.parent / DESCRIPTION).is_file():
        content = {"model": read_file(path), **_description(path.parent / DESCRIPTION)}
    else:
        content = read_file(path)
    if isinstance(content, Mapping) and {"model", "recipe", "categories"} <= content.keys():
        if recipe is not None:
            raise CheckpointError(f"{path} is of a run, which knows its recipe; leave the recipe out")
        return _of_a_run(path, content, device)
    if recipe is None:
        raise CheckpointError(f"{path} does not say what model it holds, as files of this project do; name a recipe")
    return _published(content, recipe, device)


def _in_the_folder(folder: Path) -> Path:
    for name in (WEIGHTS, CHECKPOINT):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} has neither {WEIGHTS} nor {CHECKPOINT}, which training writes")


def _description(path: Path) -> dict[str, Any]:
    if path.stat().st_size > LARGEST_DESCRIPTION:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes; it should have at most {LARGEST_DESCRIPTION}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not {"recipe", "categories"} <= content.keys():
        raise CheckpointError(f'{path} should hold {{"recipe": ..., "categories": ...}}')
    return {name: content[name] for name in ("recipe", "categories")}


def _of_a_run(path: Path, content: Mapping[str, Any], device: str | torch.device) -> Trained:
    """With the moving average, where the run keeps one."""
    try:
        recipe, categories = Recipe.from_dict(content["recipe"]), Categories.of(content["categories"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} has a recipe or categories that cannot be read: {error}") from error
    weights = content["model"] if content.get("ema") is None else _averaged(content["ema"])
    try:
        model = _filled(_empty(recipe), unwrapped(weights), device)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit its own recipe: {' '.join(str(error).split())}") from error
    return Trained(model, recipe, categories)


def _averaged(state: Any) -> Any:
    """What torch's AveragedModel averages, without how often it has."""
    if not isinstance(state, Mapping):
        return state
    return {name: each for name, each in state.items() if name != "n_averaged"}


def _published(content: Any, recipe: Recipe, device: str | torch.device) -> Trained:
    model = _empty(recipe)
    classes = model_config(recipe.model.name, recipe.model.settings).num_classes
    state_dict = converted(unwrapped(content), model)
    return Trained(_filled(model, state_dict, device), recipe, published_categories(classes))


def _empty(recipe: Recipe) -> nn.Module:
    """The model without memory for its parameters."""
    with torch.device("meta"):
        return make_model(recipe.model.name, recipe.model.settings)


def _filled(model: nn.Module, state_dict: Mapping[str, Tensor], device: str | torch.device) -> nn.Module:
    model.load_state_dict(state_dict, assign=True)
    return model.float().to(device).eval()
