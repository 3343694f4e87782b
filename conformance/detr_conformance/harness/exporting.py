"""The program that torch.export makes of an implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.harness.subject import explained


class _Module(nn.Module):
    """torch.export takes modules."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)


def exported(
    made: Callable[..., Any], positional: tuple[Tensor, ...] = (), named: dict[str, Tensor] | None = None
) -> Callable[..., Any]:
    """A function or module as one program, traced without gradients with these arguments.

    Raises:
        Raised: torch.export refuses it.
    """
    module = made if isinstance(made, nn.Module) else _Module(made)
    with torch.no_grad(), explained("torch.export.export"):
        return torch.export.export(module, positional, named or {}).module()
