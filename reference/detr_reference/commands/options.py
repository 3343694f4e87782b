"""Options that `detr-spec evaluate` and `detr-spec predict` share, and how they write JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from detr_reference.cli import CannotDo


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """--recipe, --set and --device."""
    options = (
        click.option("--recipe", metavar="NAME", help="What a published file holds: a recipe's name or .toml file."),
        click.option("--set", "values", multiple=True, metavar="KEY=VALUE", help="Change the recipe; repeatable."),
        click.option("--device", metavar="NAME", help="Such as cpu or cuda:1.  [default: a GPU if there is one]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def recipe_of(name: str | None, values: tuple[str, ...]) -> Any:
    """The `Recipe` of --recipe, changed by --set; None without either.

    Raises:
        CannotDo: --set stands alone, or is not KEY=VALUE.
        ValueError: there is no such recipe or key.
    """
    if name is None:
        if values:
            raise CannotDo("--set changes the recipe of a published file, so it needs --recipe")
        return None
    from detr_reference.training.recipes.recipe import Recipe

    return Recipe.read(name).with_values(settings(values))


def settings(values: tuple[str, ...]) -> dict[str, str]:
    """{"model.num_queries": "300"} of "model.num_queries=300"."""
    pairs = [value.partition("=") for value in values]
    for key, equals, value in pairs:
        if not (key and equals and value):
            raise CannotDo(f"--set needs KEY=VALUE, such as model.num_queries=300, got {key + equals + value!r}")
    return {key: value for key, _, value in pairs}


def in_a_folder(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Callback of options that name a file to write: hours later is too late to find that it cannot be written."""
    if value is not None and not Path(value).resolve().parent.is_dir():
        raise CannotDo(f"cannot write {value}: there is no folder {Path(value).parent}")
    return value


def write_json(path: str, content: Any) -> None:
    """Readable by people too."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
    except OSError as error:
        raise CannotDo(f"cannot write {path}: {error.strerror}") from error
