"""What a call finds beside its arguments: modes, threads, random state; to be read here and taken over there."""

from __future__ import annotations

import base64
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

Ambient = dict[str, Any]
AUTOCAST = ("cpu", "cuda")


def _autocast() -> list[list[Any]]:
    return [[each, torch.is_autocast_enabled(each), _name(torch.get_autocast_dtype(each))] for each in AUTOCAST]


def _set_autocast(states: list[list[Any]]) -> None:
    for device, enabled, dtype in states:
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, getattr(torch, dtype))


def _random_state() -> str:
    return base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()


def _set_random_state(text: str) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def flushes_subnormals() -> bool:
    """There is no other way to ask."""
    return not bool(torch.tensor(1e-40, dtype=torch.float32) * 1.5)


STATES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "grad_mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "default_dtype": (
        lambda: _name(torch.get_default_dtype()),
        lambda name: torch.set_default_dtype(getattr(torch, name)),
    ),
    "threads": (torch.get_num_threads, torch.set_num_threads),
    "deterministic": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "matmul_precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "anomaly_detection": (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    "autocast": (_autocast, _set_autocast),
    "flushes_subnormals": (flushes_subnormals, torch.set_flush_denormal),
    "random_state": (_random_state, _set_random_state),
}


def read() -> Ambient:
    """The state of this process and thread."""
    return {name: read() for name, (read, _) in STATES.items()}


def take(wanted: Ambient) -> None:
    """Makes it the state of this process and thread, as far as it is another one."""
    for name, (read, write) in STATES.items():
        if name in wanted and read() != wanted[name]:
            write(wanted[name])


def saved_elsewhere() -> bool:
    """Whether hooks keep what is saved for backward passes elsewhere."""
    hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return hooks is not None and hooks(False) is not None


def saving_elsewhere() -> AbstractContextManager[Any]:
    """Hooks that do the like, in whose place those of another process cannot be."""
    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), lambda tensor: tensor)


def others() -> list[Any]:
    """Random states that are not handed over, only watched."""
    numpy = sys.modules.get("numpy")
    return [random.getstate(), repr(numpy.random.get_state()) if numpy else None]


def disturb(which: list[bool]) -> None:
    """What the target did to them over there is done here too, so that whoever looks finds them changed."""
    if which[0]:
        random.seed()
    if which[1]:
        import numpy

        numpy.random.seed()  # noqa: NPY002


@contextmanager
def kept() -> Iterator[None]:
    """Whatever is done within leaves no mode and no random state changed."""
    before = read()
    try:
        yield
    finally:
        take(before)
