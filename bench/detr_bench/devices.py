"""How time and memory are told on a device, and what the device could do at best.

On CUDA a round is timed by events of the device, behind a write that fills the second-level cache with something else;
the device is busy with it while the host launches, so that launching is hidden where it can be hidden. On a CPU and on
other devices it is wall-clock time, after the device has finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Clock = Callable[[], Any]  # the difference of two readings is in seconds
CACHE_BYTES = 1 << 28  # more than any second-level cache of a GPU
ROUNDS = 7
COPIED = (1 << 21, 1 << 24, 1 << 27)  # bytes


class Instant:
    """A moment in the stream of the current CUDA device; a difference waits until the later one has passed."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def __sub__(self, earlier: Instant) -> float:
        self.event.synchronize()
        milliseconds: float = earlier.event.elapsed_time(self.event)
        return milliseconds / 1e3


def kind(device: str) -> str:
    """cuda:1 -> cuda"""
    return device.partition(":")[0]


def is_present(device: str) -> bool:
    """Whether a tensor can be made there; of a GPU without making one, which would occupy it."""
    if kind(device) == "cuda":
        return int(device.partition(":")[2] or 0) < torch.cuda.device_count()
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        return False
    return True


def clock_of(device: str) -> Clock:
    """A clock for what runs on the device, which becomes the current one."""
    if kind(device) == "cuda":
        torch.cuda.set_device(device)
        return Instant
    if kind(device) == "cpu":
        return time.perf_counter
    synchronize = getattr(torch, kind(device)).synchronize

    def finished() -> float:
        synchronize()
        return time.perf_counter()

    return finished


def cache_filler(device: str) -> Callable[[], object]:
    """Something to call before each round; on a CPU the other implementation's round has replaced what was cached."""
    if kind(device) != "cuda":
        return lambda: None
    buffer = torch.empty(CACHE_BYTES, dtype=torch.uint8, device=device)
    return buffer.zero_


def cuda_peak_bytes(function: Callable[[], object], device: str) -> int:
    """The most that a call allocates beyond what was allocated before it, its results included."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    function()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


@dataclass(frozen=True)
class Ceilings:
    """What the device reaches at what it does best: copying a tensor, multiplying two square matrices."""

    device: str
    dtype: str
    bytes_per_second: float
    flops_per_second: float


def measure_ceilings(device: str, dtype: str) -> Ceilings:
    """Measured, not looked up: the best of a few rounds, and of copies from the caches of a CPU and past them."""
    large = kind(device) != "cpu"
    clock, element = clock_of(device), getattr(torch, dtype)
    side = 8192 if large else 768
    matrix = torch.ones(side, side, dtype=element, device=device)
    copied = max(_bytes_per_second(size, device, element, clock) for size in ((1 << 30,) if large else COPIED))
    multiplied = best_seconds(lambda: matrix @ matrix, clock)
    return Ceilings(device, dtype, copied, 2 * side**3 / multiplied)


def _bytes_per_second(size: int, device: str, element: torch.dtype, clock: Clock) -> float:
    """Of a copy, which reads and writes so many bytes."""
    source = torch.ones(size // element.itemsize, dtype=element, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_seconds(lambda: target.copy_(source), clock)


def best_seconds(function: Callable[[], object], clock: Clock) -> float:
    """After one round that is not counted."""
    function()
    return min(timed(function, clock) for _ in range(ROUNDS))


def timed(function: Callable[[], object], clock: Clock) -> float:
    """Seconds of one call."""
    start = clock()
    function()
    return float(clock() - start)
