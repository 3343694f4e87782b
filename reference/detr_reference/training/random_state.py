"""Where the streams of random numbers of a process stand, as plain values."""

from __future__ import annotations

import random
from typing import Any

import torch


def random_state(device: torch.device) -> dict[str, Any]:
    """The generators of torch, of the GPU of this process if it has one, and of Python.

    numpy's is not among them: nothing here draws from it.
    """
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Go on from there. The GPU's stream stays as it is where the state was taken without one."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    random.setstate(state["python"])
