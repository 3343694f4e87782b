"""The target and the reference turn by turn, so that whatever else the machine does meets both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from detr_bench.calls import Call
from detr_bench.devices import Clock, cache_filler, timed
from detr_bench.spread import spread

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

LEAST_ROUNDS, MOST_ROUNDS = 5, 500
DISAGREEMENT = 0.05  # of the norm: a launch that failed, an index that overflowed; what is less, the check judges


class Disagrees(Exception):
    """At this size the target computes something else than the reference, whatever it did in the check."""


@dataclass
class Runner:
    """One direction of a call; of "backward" the forward part is made before the clock starts."""

    call: Call
    direction: str
    outputs: dict[str, Tensor] | None = None

    def prepare(self) -> None:
        self.outputs = self.call.outputs() if self.direction == "backward" else None

    def go(self) -> None:
        """What is timed. Nothing is kept, so that every round allocates anew."""
        if self.direction == "forward":
            with torch.no_grad():
                self.call.outputs()
            return
        outputs, self.outputs = self.outputs, None
        self.call.gradients(self.call.outputs() if outputs is None else outputs)

    def round(self) -> None:
        self.prepare()
        self.go()


def race(
    benchmark: BenchmarkFixture, own: Runner, reference: Runner, clock: Clock, device: str, seconds: float
) -> list[float]:
    """Rounds of both for about so many seconds: the target's go to pytest-benchmark, the reference's are returned."""
    fill = cache_filler(device)
    for runner in (reference, own):  # warm-up
        runner.round()
    once = sum(timed(runner.round, clock) for runner in (reference, own))
    beside: list[float] = []

    def reference_first() -> None:
        reference.prepare()
        fill()
        beside.append(timed(reference.go, clock))
        own.prepare()
        fill()

    benchmark.pedantic(own.go, setup=reference_first, rounds=rounds_in(seconds, once))
    return beside


def rounds_in(seconds: float, once: float) -> int:
    """As many as fit, within bounds."""
    return min(MOST_ROUNDS, max(LEAST_ROUNDS, round(seconds / once))) if once > 0 else MOST_ROUNDS


def times(own: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Medians and quartiles of both, and of the speed: reference over target, round by round; above 1 is faster."""
    ratios = [theirs / ours for ours, theirs in zip(own, reference, strict=True)]
    return {
        "speed": spread(ratios).as_dict(),
        "own_seconds": spread(own).as_dict(),
        "reference_seconds": {**spread(reference).as_dict(), "data": list(reference)},
    }


def difference(own: Call, reference: Call, direction: str) -> float:
    """The largest |a - b| / |b| of the outputs and of the gradients of the inputs, by Euclidean norms.

    Raises:
        Disagrees: it is above `DISAGREEMENT`, not finite, or a result is missing or of another shape.
    """
    with torch.set_grad_enabled(direction != "forward"):
        right, got = reference.outputs(), own.outputs()
    worst = _largest_difference(got, right)
    if direction == "forward":
        return worst
    return max(worst, _largest_difference(_input_gradients(own, got), _input_gradients(reference, right)))


def _input_gradients(call: Call, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = zip(call.scene.leaves(), call.gradients(outputs), strict=False)  # those of the parameters follow
    return {f"grad_{name}": gradient for name, gradient in found if gradient is not None}


def _largest_difference(got: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    worst = 0.0
    for name, expected in right.items():
        if name not in got or got[name].shape != expected.shape:
            shape = tuple(got[name].shape) if name in got else "nothing"
            raise Disagrees(f"at this size {name} is {shape}, not {tuple(expected.shape)}")
        a, b = (t.detach().to(torch.promote_types(t.dtype, torch.float32)) for t in (got[name], expected))
        apart = float((a - b).norm() / b.norm().clamp(min=torch.finfo(b.dtype).tiny))
        if not apart <= DISAGREEMENT:
            raise Disagrees(f"at this size {name} differs from the reference by {apart:.0%} of its norm")
        worst = max(worst, apart)
    return worst
