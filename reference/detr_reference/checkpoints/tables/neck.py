"""The neck that other libraries number through, one projection a level, as the reference's two lists.

A table writes `neck.{i}` for level i. Its 1 x 1 convolutions project maps of the backbone, `neck.convs.{i}`; those of
3 x 3, behind them, make further maps, `neck.extra_convs.{k}`. How many of each a file has is seen in the sizes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from detr_reference.checkpoints.names import Row


def numbered_rows(theirs: str) -> list[Row]:
    """Rows for a neck whose level i is a sequence of convolution and norm."""
    return [(f"{theirs}.{{i}}.0.{{p}}", "neck.{i}.conv.{p}"), (f"{theirs}.{{i}}.1.{{p}}", "neck.{i}.norm.{p}")]


def placed(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The numbered levels as `neck.convs` and `neck.extra_convs`."""
    sizes = {int(match[1]): t.shape[-1] for name, t in named.items() if (match := _weight(name)) and t.ndim == 4}
    projections = sum(size == 1 for size in sizes.values())
    return {_placed_name(name, projections): tensor for name, tensor in named.items()}


def numbered(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `placed`: also the numbered name of every tensor of the neck."""
    projections = sum(name.startswith("neck.convs.") and name.endswith(".conv.weight") for name in state_dict)
    first = {"convs": 0, "extra_convs": projections}
    levels = {
        re.sub(r"^neck\.(convs|extra_convs)\.(\d+)", lambda match: f"neck.{first[match[1]] + int(match[2])}", name): t
        for name, t in state_dict.items()
    }
    return {**state_dict, **levels}


def _weight(name: str) -> re.Match[str] | None:
    return re.fullmatch(r"neck\.(\d+)\.conv\.weight", name)


def _placed_name(name: str, projections: int) -> str:
    match = re.match(r"neck\.(\d+)\.", name)
    if not match:
        return name
    level, rest = int(match[1]), name[match.end() :]
    if level < projections:
        return f"neck.convs.{level}.{rest}"
    return f"neck.extra_convs.{level - projections}.{rest}"
