"""A state dict under the reference's names, brought to a model: heads, class rows, and every difference reported."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from detr_reference.checkpoints.classes import rows_of_the_model
from detr_reference.checkpoints.errors import CheckpointError
from detr_reference.checkpoints.formats import Format
from detr_reference.checkpoints.heads import heads_of_the_model, repeated_heads


def fitted(named: Mapping[str, Tensor], expected: Mapping[str, Tensor], format: Format) -> dict[str, Tensor]:
    """The file's tensors for a model with this state dict.

    Args:
        named: the file's, under the reference's names.
        expected: the model's; only names and shapes matter.
        format: the file's.

    Raises:
        CheckpointError: the file lacks parameters, has others, or some are of other shapes; all of them are listed.
    """
    if format.shared_heads_left_out:
        named = repeated_heads(named, expected)
    found, faults = heads_of_the_model(named, expected)
    first_stage = _first_stage_head(expected) if format.objectness else None
    for name in found.keys() & expected.keys():
        if expected[name].ndim:
            is_score = first_stage is not None and name.startswith(f"{first_stage}.")
            found[name] = rows_of_the_model(name, found[name], expected[name].shape[0], objectness=is_score)
    faults += [f"unknown: {name}, which the model does not have" for name in found if name not in expected]
    faults += [f"missing: {name}" for name in expected if name not in found]
    faults += [
        f"shape: {name} is {tuple(found[name].shape)} and should be {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if faults:
        raise CheckpointError.of("the file does not fit the model", faults)
    return {name: found[name] for name in expected}


def _first_stage_head(expected: Mapping[str, Tensor]) -> str | None:
    """The class head that the encoder of a two-stage model has, the last one."""
    if not any(name.startswith("transformer.enc_output.") for name in expected):
        return None
    numbers = [int(match[1]) for name in expected if (match := re.fullmatch(r"class_embed\.(\d+)\.weight", name))]
    return f"class_embed.{max(numbers)}"
