"""The checkpoint of a run: all that is needed to go on as if it had never stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr_reference.checkpoints.errors import CheckpointError
from detr_reference.checkpoints.reading import read_file
from detr_reference.training.atomic import whole_file

FORMAT = "detr-spec training 1"
KINDS = {"step": int, "recipe": dict, "categories": list, "images": str, "random_states": list}


@dataclass(frozen=True)
class Checkpoint:
    """Tensors and plain containers alone, so that torch.load reads it with weights_only.

    Attributes:
        step: steps of the optimiser so far; with the number of steps of an epoch it tells what was seen of which epoch.
        recipe: as `Recipe.to_dict` gives it.
        categories: as `Categories.to_list` gives them.
        images: tells the training images from others, see `images_digest`.
        model: state dict.
        optimizer, schedule: state dicts.
        ema: state dict of the moving average of the model, or None.
        random_states: see `random_state`, of each process.
    """

    step: int
    recipe: dict[str, Any]
    categories: list[dict[str, Any]]
    images: str
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    ema: dict[str, Tensor] | None
    random_states: list[dict[str, Any]]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Whole or not at all: the checkpoint before stays readable until this one is on the disk."""
    content = {"format": FORMAT, **{field.name: getattr(checkpoint, field.name) for field in fields(Checkpoint)}}
    with whole_file(path) as file:
        torch.save(content, file)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint in this file, its tensors on the CPU.

    Raises:
        CheckpointError: there is no file, it is cut off, its pickle asks for more than tensors and containers, or it is
            not of a run of this project.
    """
    content = read_file(path)
    names = [field.name for field in fields(Checkpoint)]
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not the checkpoint of a run of `detr-spec train`, and cannot be resumed")
    missing = [name for name in names if name not in content]
    wrong = [name for name, kind in KINDS.items() if name in content and not isinstance(content[name], kind)]
    if missing or wrong:
        raise CheckpointError(f"{path} is damaged: it lacks, or has in another form, {', '.join(missing + wrong)}")
    return Checkpoint(**{name: content[name] for name in names})


def check_same_run(path: Path, checkpoint: Checkpoint, recipe: Mapping[str, Any], images: str) -> None:
    """A run goes on only with the recipe and the images that it began with.

    Raises:
        CheckpointError: something differs; the message names the keys and both values.
    """
    before, now = _flat(checkpoint.recipe), _flat(recipe)
    changed = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    if changed:
        listed = "; ".join(f"{name} was {_shown(before, name)} and is {_shown(now, name)}" for name in changed)
        raise CheckpointError(
            f"{path} is of a run with another recipe, so it cannot be resumed with this one: {listed}. "
            "Give the same recipe, or another output folder for a new run"
        )
    if checkpoint.images != images:
        raise CheckpointError(f"{path} is of a run with other training images, so it cannot be resumed with these")


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"training.epochs": 12, ...}; tuples as lists, since either may come out of a file."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "absent"
