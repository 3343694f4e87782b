"""Where the tests of the Triton kernels run: on a GPU, or where there is none in Triton's interpreter on the CPU.

Triton decides when it is imported, so this module has to be imported before it.
"""

from __future__ import annotations

import os
import sys

import torch
from torch import Tensor

from helpers.tiny.msda_cases import Case

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

if DEVICE == "cpu":
    if "triton" in sys.modules and not sys.modules["triton"].knobs.runtime.interpret:
        raise RuntimeError("triton was imported without TRITON_INTERPRET=1; conftest.py has to set it first")
    os.environ["TRITON_INTERPRET"] = "1"


def on_device(case: Case, dtype: torch.dtype | None = None) -> Case:
    """The case where the kernels run; its floating-point arguments in a dtype."""
    case = case if dtype is None else case.to(dtype)
    return Case(*(tensor.to(DEVICE) for tensor in case))


def gradients(output: Tensor, case: Case, grad_output: Tensor) -> tuple[Tensor, ...]:
    """Of value, locations and weights, on the CPU."""
    return tuple(gradient.cpu() for gradient in torch.autograd.grad(output, case.leaves(), grad_output.to(output)))
