"""The sizes that are asked for: fields of an operation's configuration as TOML, or a recipe of `detr-spec train`."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detr_conformance.operations import OPERATIONS, resolve
from detr_reference.cli import CannotDo
from detr_reference.training.recipes.fields import read_fields
from detr_reference.training.recipes.recipe import Recipe
from detr_reference.training.recipes.sections import ModelRecipe

LARGEST_FILE = 1 << 20
LARGEST_NUMBER = 1 << 16  # of anything: beyond it a typing mistake would fill the memory
MOST_PARAMETERS = 4_000_000_000
DEFAULTS: dict[str, dict[str, Any]] = {
    "decoder_layer": {"operation_order": ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm")}
}


def read_config(operation: str, given: str | None) -> Any:
    """The operation's configuration.

    Args:
        given: a .toml file, of the fields or of a whole recipe, or an installed recipe's name; None means the published
            sizes, the defaults of the fields.

    Raises:
        CannotDo: it cannot be read, is of another model, or has fields that are unknown or impossible.
    """
    try:
        return _checked(_read(operation, given))
    except ValueError as error:
        raise CannotDo(f"--config {given}: {error}") from error


def _read(operation: str, given: str | None) -> Any:
    if given is None:
        return _of_fields(operation, {})
    if not given.endswith(".toml"):
        return _of_model(operation, Recipe.read(given).model)
    path = Path(given)
    if path.is_file() and path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path.stat().st_size} bytes are more than the {LARGEST_FILE} of a configuration")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"it cannot be read, {error.strerror}; give a .toml file or a recipe's name") from error
    if isinstance(values.get("model"), Mapping):
        return _of_model(operation, ModelRecipe.from_dict(values["model"]))
    return _of_fields(operation, values)


def _of_model(operation: str, model: ModelRecipe) -> Any:
    if model.name != operation:
        raise ValueError(f"it is a recipe of {model.name}, not of {operation}; give --operation {model.name}")
    return _of_fields(operation, model.settings)


def _of_fields(operation: str, values: Mapping[str, Any]) -> Any:
    config = OPERATIONS[operation].config
    assert config is not None
    return read_fields(resolve(config), {**DEFAULTS.get(operation, {}), **values}, "")


def _checked(config: Any) -> Any:
    """Raises ValueError: a size would fill the memory."""
    for name, value in dataclasses.asdict(config).items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and number > LARGEST_NUMBER:
                raise ValueError(f"{name} is {number}, more than the {LARGEST_NUMBER} that is tried")
    return config


def settings_of_config(config: Any) -> dict[str, Any]:
    """Its fields, as a case's settings have them."""
    return dataclasses.asdict(config)
