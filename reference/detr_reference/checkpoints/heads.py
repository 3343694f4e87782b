"""The heads of a file, one of each kind for every decoder layer, and those of a model, which may share them.

In a model that shares them head 0 serves all decoder layers; the last heads of a two-stage model are the encoder's.
Sources: fundamentalvision/Deformable-DETR, models/deformable_detr.py; IDEA-Research/DINO, models/dino/dino.py; detrex,
projects/dino/modeling/dino.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from detr_reference.checkpoints.tensors import equal

# Stands in a table for the number of the encoder's heads, which is one more than the decoder's last.
ENCODER_HEAD = "encoder"

_HEAD = re.compile(r"(class_embed|bbox_embed)\.(\d+|encoder)\.(.*)")


def numbered_heads(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's heads under the number behind the decoder's."""
    last = _count(named)
    return {name.replace(f"_embed.{ENCODER_HEAD}.", f"_embed.{last}."): tensor for name, tensor in named.items()}


def heads_of_the_model(named: Mapping[str, Tensor], model: Iterable[str]) -> tuple[dict[str, Tensor], list[str]]:
    """The heads that the model has, where it shares among layers what the file repeats for each.

    Args:
        named: the file's tensors, under the reference's names.
        model: the names of the model's tensors.

    Returns:
        the tensors, and a line for each copy of a shared head that differs from head 0. Everything is left as it is if
        the model has as many heads as the file.
    """
    model = list(model)
    theirs, ours = _count(named), _count(model)
    two_stage = _is_two_stage(model)
    if ours >= theirs or ours != 1 + two_stage:
        return dict(named), []
    kept, faults = {}, []
    for name, tensor in named.items():
        match = _HEAD.fullmatch(name)
        if match is None or match[2] == "0":
            kept[name] = tensor
        elif two_stage and int(match[2]) == theirs - 1:
            kept[f"{match[1]}.1.{match[3]}"] = tensor
        elif not equal(tensor, named.get(f"{match[1]}.0.{match[3]}", tensor)):
            faults.append(f"in conflict: {name} differs from {match[1]}.0.{match[3]}, and the model shares its heads")
    return kept, faults


def repeated_heads(named: Mapping[str, Tensor], model: Iterable[str]) -> dict[str, Tensor]:
    """A kind of head that the file holds once, for each layer of a model that has more.

    transformers leaves out of a file what is shared, and shares the class heads of a Deformable DETR among layers even
    where each layer has a box head of its own.
    """
    once = {kind for kind in ("class_embed", "bbox_embed") if _count(name for name in named if kind in name) == 1}
    repeated = dict(named)
    for name in model:
        match = _HEAD.fullmatch(name)
        first = f"{match[1]}.0.{match[3]}" if match else ""
        if match and match[1] in once and first in named:
            repeated[name] = named[first]
    return repeated


def head_in_the_model(name: str, model: Iterable[str]) -> str:
    """The model's own name of what a file holds under this one: the inverse of both functions above."""
    match = _HEAD.fullmatch(name)
    if match is None:
        return name
    model = list(model)
    layers = 1 + max((int(each[1]) for each in _decoder_layers(model)), default=-1)
    last, decoder_heads = _count(model) - 1, _count(model) - _is_two_stage(model)
    if match[2] == ENCODER_HEAD or int(match[2]) == layers:
        return f"{match[1]}.{last}.{match[3]}"
    return f"{match[1]}.0.{match[3]}" if decoder_heads == 1 else name


def _count(names: Iterable[str]) -> int:
    numbers = [int(match[2]) for name in names if (match := _HEAD.fullmatch(name)) and match[2] != ENCODER_HEAD]
    return 1 + max(numbers, default=-1)


def _is_two_stage(names: Iterable[str]) -> bool:
    return any(name.startswith("transformer.enc_output.") for name in names)


def _decoder_layers(names: Iterable[str]) -> list[re.Match[str]]:
    return [match for name in names if (match := re.match(r"transformer\.decoder\.layers\.(\d+)\.", name))]
