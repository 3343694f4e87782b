"""Modules with every parameter perturbed, for tests of self-attention, cross-attention and the Vision Transformer."""

from __future__ import annotations

from typing import TypeVar

import torch
from numpy.typing import NDArray
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def perturbed(module: Module) -> Module:
    """In float64 and evaluation mode, no parameter as it was initialised: initial ones hide most defects."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return module


def as_numpy(module: nn.Module) -> dict[str, NDArray]:
    return {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}
