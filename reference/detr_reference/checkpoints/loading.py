"""The parameters in somebody's file, for a model of the reference."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor, nn

from detr_reference.checkpoints.fitting import fitted
from detr_reference.checkpoints.formats import detect_format, format_named
from detr_reference.checkpoints.reading import read_file
from detr_reference.checkpoints.renaming import reference_names
from detr_reference.checkpoints.unwrapping import unwrapped


def load_checkpoint(
    path: str | os.PathLike[str], model: nn.Module, *, format: str | None = None, weights: str = "model"
) -> dict[str, Tensor]:
    """The state dict of a published file for this model, strictly: each parameter once, none too many, none missing.

    Args:
        path: a `.pth` or `.safetensors` file.
        model: of the reference, with the sizes of the file: a detector, or a `ResNet` for a backbone's file. It is not
            changed; give the result to its `load_state_dict`.
        format: a name in `formats.FORMATS`; None detects it by the names in the file.
        weights: "model", or "ema_model" or "ema_state" where a file has a moving average too.

    Raises:
        CheckpointError: the file cannot be read, or does not fit; the message lists everything that does not.
    """
    return converted(unwrapped(read_file(path), weights), model, format=format)


def converted(state_dict: Mapping[str, Tensor], model: nn.Module, *, format: str | None = None) -> dict[str, Tensor]:
    """The same from a state dict in memory.

    Raises:
        CheckpointError: it does not fit; the message lists everything that does not.
    """
    known = format_named(detect_format(state_dict) if format is None else format)
    return fitted(reference_names(known.table, state_dict), model.state_dict(), known)
