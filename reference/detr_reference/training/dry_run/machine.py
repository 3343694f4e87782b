"""What is assumed of a machine that a recipe is projected for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from detr_reference.training.recipes.fields import check_names
from detr_reference.training.recipes.recipe import Recipe


@dataclass(frozen=True)
class Machine:
    """What is assumed of the machine; the defaults are for float32, see `assumed_machine`.

    Attributes:
        gpu: its name, for the reader.
        gpus: how many, a process each.
        teraflops: the peak of one, 10^12 operations a second, in the precision of the training.
        gigabytes: its memory, 10^9 bytes.
        utilisation: the share of the peak that training is assumed to reach.

    Raises:
        ValueError: a number is out of range.
    """

    gpu: str = "NVIDIA A100 40 GB"
    gpus: int = 8
    teraflops: float = 19.5  # its data sheet: FP32
    gigabytes: float = 40.0
    utilisation: float = 0.3

    def __post_init__(self) -> None:
        if self.gpus < 1:
            raise ValueError(f"gpus must be at least 1, got {self.gpus}")
        for name in ("teraflops", "gigabytes", "utilisation"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.utilisation > 1:
            raise ValueError(f"utilisation is a share of the peak, at most 1, got {self.utilisation}")


def assumed_machine(recipe: Recipe, values: Mapping[str, str] | None = None) -> Machine:
    """Eight A100, or one for generated shapes, in the precision of the recipe, with these values in place of their own.

    In bfloat16 products are 16 times as fast, sampling and norms are not: a smaller share of the peak is assumed.

    Args:
        values: by name of the attribute, such as {"gpus": "4"}.

    Raises:
        ValueError: a name is unknown, or a value is no number or out of range.
    """
    machine = Machine(gpus=8 if recipe.data.set == "coco" else 1)
    if recipe.training.autocast:
        machine = replace(machine, teraflops=312.0, utilisation=0.05)  # its data sheet: BF16 tensor cores, dense
    values = values or {}
    check_names(values, vars(machine), "")
    changed: dict[str, Any] = {}
    for name, text in values.items():
        try:
            changed[name] = type(getattr(machine, name))(text)
        except ValueError:
            raise ValueError(f"{name} must be a number, got {text!r}") from None
    return replace(machine, **changed)
