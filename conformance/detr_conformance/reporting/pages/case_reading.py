"""The tensors of a failing case that can be drawn; what is too large, or no case, is left alone with a word."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_FILE = 256 << 20
MOST_ELEMENTS = 1 << 20  # of a tensor that is drawn
PARTS_DRAWN = ("spatial_shapes", "level_start_index", "sampling_locations", "mask", "boxes", "reference", "proposals")


def tensors_drawn(path: Path) -> dict[str, Tensor] | str:
    """Those tensors of a case file that a drawing is made of, and the shape of `value`; else why there are none.

    Sizes are looked at before anything is read.
    """
    try:
        if not path.is_file():
            return f"no drawing of the case: {path.name} is not there"
        if path.stat().st_size > LARGEST_FILE:
            return f"no drawing of the case: {path.name} is larger than {LARGEST_FILE >> 20} MiB"
    except OSError as error:
        return f"no drawing of the case: {path.name} cannot be read ({error.strerror})"
    import torch
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                shape = file.get_slice(name).get_shape()
                if name == "value":
                    tensors[name] = torch.empty(shape, device="meta")
                elif any(part in name for part in PARTS_DRAWN) and prod(shape) <= MOST_ELEMENTS:
                    tensors[name] = file.get_tensor(name)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        return f"no drawing of the case: {path.name} is no case file ({error})"
    return tensors
