"""Labels of a model and category ids of a data set: ids may have gaps, labels are numbered from 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Categories:
    """The category of each label.

    Attributes:
        ids: of the labels 0, 1, ...; no two are equal.
        names: of the labels.

    Raises:
        ValueError: there are no categories, not as many names, or an id comes twice.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.ids or len(self.ids) != len(self.names):
            raise ValueError(
                f"as many names as ids are needed, at least one, got {len(self.names)} and {len(self.ids)}"
            )
        if len(set(self.ids)) != len(self.ids):
            twice = sorted({number for number in self.ids if self.ids.count(number) > 1})
            raise ValueError(f"category ids must differ; more than once: {twice}")

    @classmethod
    def of(cls, categories: Iterable[Mapping[str, Any]]) -> Categories:
        """From COCO's [{"id", "name"}, ...]: labels in rising order of the ids, as in detrex."""
        pairs = sorted((int(each["id"]), str(each["name"])) for each in categories)
        return cls(tuple(number for number, _ in pairs), tuple(name for _, name in pairs))

    def by_id(self, channels: int) -> Categories:
        """The same categories where a label is an id, as in published models with 91 class channels.

        Labels that are no id get a name like "(12)"; a trained model never predicts them.

        Raises:
            ValueError: an id is not below `channels`.
        """
        if max(self.ids) >= channels:
            raise ValueError(f"category id {max(self.ids)} needs more than {channels} classes")
        names = dict(zip(self.ids, self.names, strict=True))
        return Categories(tuple(range(channels)), tuple(names.get(label, f"({label})") for label in range(channels)))

    def __len__(self) -> int:
        return len(self.ids)

    def label_of(self, category_id: int) -> int:
        """The label of a category.

        Raises:
            KeyError: there is no such category.
        """
        try:
            return self.ids.index(category_id)
        except ValueError:
            raise KeyError(f"no category has the id {category_id}; the ids are {self.ids}") from None

    def id_of(self, label: int) -> int:
        """The category of a label.

        Raises:
            IndexError: there is no such label.
        """
        if not 0 <= label < len(self.ids):
            raise IndexError(f"no category has the label {label}; labels go from 0 to {len(self.ids) - 1}")
        return self.ids[label]

    def to_list(self) -> list[dict[str, Any]]:
        """[{"id", "name"}, ...], as in annotations."""
        return [{"id": number, "name": name} for number, name in zip(self.ids, self.names, strict=True)]
