"""What modules do with all their parameters at once: take over given ones, or begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def with_parameters(module: Module, state_dict: Mapping[str, Tensor] | None) -> Module:
    """The module with copies of these parameters, on their device and in their dtype; None leaves it as it is.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    if state_dict is not None:
        module.to(next(iter(state_dict.values()), torch.empty(0)))
        module.load_state_dict(state_dict)
    return module


def xavier_matrices(module: nn.Module) -> None:
    """All matrices Xavier-uniform; vectors stay as they are. What has a rule of its own has to begin after it."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
