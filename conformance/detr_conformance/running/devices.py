"""Which devices this machine has."""

from __future__ import annotations

import platform

import torch


def is_present(device: str) -> bool:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        return False
    return True


def describe_device(device: str) -> str:
    """Its name, for a report."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return platform.machine() if device == "cpu" else device
