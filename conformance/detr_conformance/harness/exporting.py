"""What torch.compile and torch.export make of an implementation, wherever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.harness.subject import explained
from detr_conformance.isolation import remote


class _Module(nn.Module):
    """torch.export takes modules."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)


def captured(made: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """A function or module captured whole by torch.compile."""
    if isinstance(made, remote.Remote | remote.Module):
        return made.captured(backend)
    torch.compiler.reset()
    compiled: Callable[..., Any] = torch.compile(made, fullgraph=True, backend=backend)
    return compiled


def exported(
    made: Callable[..., Any], positional: tuple[Tensor, ...] = (), named: dict[str, Tensor] | None = None
) -> Callable[..., Any]:
    """A function or module as one program, traced without gradients with these arguments.

    Raises:
        Raised: torch.export refuses it.
    """
    with torch.no_grad(), explained("torch.export.export"):
        if isinstance(made, remote.Remote | remote.Module):
            return made.exported(positional, named or {})
        module = made if isinstance(made, nn.Module) else _Module(made)
        return torch.export.export(module, positional, named or {}).module()
