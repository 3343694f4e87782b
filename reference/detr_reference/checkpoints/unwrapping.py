"""The tensors in what a training run saved: {"model": tensors, "optimizer": ..., "epoch": ...}, or tensors alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from detr_reference.checkpoints.errors import CheckpointError

WEIGHTS = ("model", "ema_model", "ema_state")
PREFIX = "module."  # of a model that was trained on several devices


def unwrapped(content: Any, weights: str = "model") -> dict[str, Tensor]:
    """The state dict in the content of a file, without a prefix `module.` that all names have.

    Args:
        content: what the file holds.
        weights: "model", or the moving average that a run may keep: "ema_model" in DINO, "ema_state" in detrex.

    Raises:
        CheckpointError: there is no state dict of that name, or it holds something else than tensors.
    """
    if weights not in WEIGHTS:
        raise CheckpointError(f"weights must be one of {', '.join(WEIGHTS)}, got {weights!r}")
    if not isinstance(content, Mapping):
        raise CheckpointError(f"the file holds a {type(content).__name__} and no state dict")
    state_dict = content.get(weights, content if weights == "model" else None)
    if not isinstance(state_dict, Mapping):
        raise CheckpointError(f"the file has no state dict {weights!r}; it has {_listed(content)}")
    others = [str(name) for name, value in state_dict.items() if not isinstance(value, Tensor)]
    if others or not state_dict:
        raise CheckpointError(f"the state dict should hold tensors alone, but has {_listed(others) or 'no entry'}")
    names = [str(name) for name in state_dict]
    start = len(PREFIX) if all(name.startswith(PREFIX) for name in names) else 0
    return {str(name)[start:]: tensor for name, tensor in state_dict.items()}


def _listed(names: Any) -> str:
    listed = [repr(str(name)) for name in names]
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
