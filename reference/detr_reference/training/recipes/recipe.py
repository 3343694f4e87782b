"""A recipe: which model is trained on what and how, as a TOML file says it."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from detr_reference.training.recipes.fields import hint, read_fields
from detr_reference.training.recipes.sections import DataRecipe, ModelRecipe, TrainingRecipe
from detr_reference.training.recipes.toml_text import toml_text

SECTIONS = ("model", "data", "training")


@dataclass(frozen=True)
class Recipe:
    """A training from beginning to end.

    Attributes:
        name: what a run is called after.
        about: what it is, in a line.
        model, data, training: the sections of the file.
        source: where the settings were read.
        published_ap: what the source reports, on COCO val2017; None where it reports none.
    """

    name: str
    about: str
    model: ModelRecipe
    data: DataRecipe
    training: TrainingRecipe
    source: str = ""
    published_ap: float | None = None

    @classmethod
    def read(cls, path_or_name: str | Path) -> Recipe:
        """The recipe of a .toml file, or an installed one by its name.

        Raises:
            ValueError: there is none, it is no TOML, or it says something unknown or impossible.
        """
        shown = str(path_or_name)
        text = _file_text(Path(shown)) if shown.endswith(".toml") else _installed_text(shown)
        try:
            return cls.from_dict(tomllib.loads(text))
        except ValueError as error:
            raise ValueError(f"{shown}: {error}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe of what a TOML file holds.

        Raises:
            ValueError: it says something unknown or impossible, or leaves something out.
        """
        given = dict(values)
        if isinstance(given.get("model"), Mapping):
            given["model"] = ModelRecipe.from_dict(given["model"])
        return read_fields(cls, given, "")

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads, of plain values; what is None is left out."""
        values: dict[str, Any] = _plain(dataclasses.asdict(self))
        values["model"] = {"name": self.model.name, **values["model"].get("settings", {})}
        return values

    def to_toml(self) -> str:
        """The text of a file that `read` reads."""
        return toml_text(self.to_dict())

    def with_values(self, values: Mapping[str, str]) -> Recipe:
        """The recipe with these values, such as {"training.epochs": "3", "model.denoising": "plain"}.

        Args:
            values: by name, with the section in front; written as in TOML, where a word needs no quotes.

        Raises:
            ValueError: a name or value is unknown or impossible.
        """
        changed = self.to_dict()
        for name, text in values.items():
            section, dot, key = name.rpartition(".")
            if dot and section not in SECTIONS:
                raise ValueError(f"{name} is unknown; {hint(section, SECTIONS)} in front of the dot")
            (changed[section] if dot else changed)[key] = _value(text)
        return Recipe.from_dict(changed)


def names() -> list[str]:
    """The installed recipes."""
    return sorted(file.name.removesuffix(".toml") for file in _folder().iterdir() if file.name.endswith(".toml"))


def _folder() -> Traversable:
    return resources.files("detr_reference.training") / "recipes"


def _installed_text(name: str) -> str:
    if name not in (known := names()):
        raise ValueError(f"there is no recipe {name!r}; {hint(name, known)}. Your own is path/to/file.toml")
    return (_folder() / f"{name}.toml").read_text(encoding="utf-8")


def _file_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file") from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def _value(text: str) -> Any:
    """What a value on the command line means in TOML, or else the word itself."""
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return read["value"] if len(read) == 1 else text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items() if each is not None}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
