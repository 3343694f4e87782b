"""The formats that can be read, by name, and which of them a file has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from detr_reference.checkpoints.errors import CheckpointError
from detr_reference.checkpoints.names import NameTable
from detr_reference.checkpoints.tables import (
    deformable_detr_official,
    detr_official,
    dino_detrex,
    dino_official,
    torchvision_resnet,
    transformers_deformable_detr,
    transformers_detr,
    transformers_resnet,
)


@dataclass(frozen=True)
class Format:
    """How files of one publisher are read.

    Attributes:
        table: their names and the reference's.
        objectness: whether the first of two stages scores proposals by class channel 0, see `classes`.
        shared_heads_left_out: whether a file holds a head once that layers share, see `heads.repeated_heads`.
    """

    table: NameTable
    objectness: bool = False
    shared_heads_left_out: bool = False


FORMATS = {
    "detr": Format(detr_official.TABLE),
    "deformable_detr": Format(deformable_detr_official.TABLE, objectness=True),
    "dino": Format(dino_official.TABLE),
    "detrex_dino": Format(dino_detrex.TABLE),
    "transformers_detr": Format(transformers_detr.TABLE),
    "transformers_deformable_detr": Format(
        transformers_deformable_detr.TABLE, objectness=True, shared_heads_left_out=True
    ),
    "torchvision_resnet": Format(torchvision_resnet.TABLE),
    "transformers_resnet": Format(transformers_resnet.TABLE),
}


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        CheckpointError: there is none.
    """
    if name not in FORMATS:
        raise CheckpointError(f"there is no format {name!r}; it must be one of {', '.join(FORMATS)}")
    return FORMATS[name]


def detect_format(names: Iterable[str]) -> str:
    """The format that knows the most of these names of parameters, at least half of them.

    Official Deformable DETR and DINO share most names: each has some that only it knows.

    Raises:
        CheckpointError: no format knows half of the names, or two know equally many.
    """
    names = list(names)
    known = {name: sum(_knows(each.table, given) for given in names) for name, each in FORMATS.items()}
    best, second = sorted(known, key=lambda name: -known[name])[:2]
    if 2 * known[best] < max(len(names), 1):
        raise CheckpointError(f"no format knows the names of this file: {best} knows {known[best]} of {len(names)}")
    if known[best] == known[second]:
        raise CheckpointError(f"{best} and {second} each know {known[best]} of {len(names)} names; say which it is")
    return best


def _knows(table: NameTable, name: str) -> bool:
    return table.is_unused(name) or table.ours(name) is not None
