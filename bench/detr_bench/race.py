"""The target and the reference turn by turn, so that whatever else the machine does meets both.

Every round has new contents, and what the target returned in it is compared with what the reference returns for them:
what was remembered, not computed, not waited for or computed while the clock stood is another result, or none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from detr_bench.agreement import Disagrees, Limits, limits, require_agreement, require_plain
from detr_bench.calls import Call, joined, make_call, reference_of
from detr_bench.devices import Clock, cache_filler, timed
from detr_bench.spread import spread

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

LEAST_ROUNDS, MOST_ROUNDS = 5, 500
GLANCES = 4096  # elements of each result that are read as soon as the clock has stopped


@dataclass
class Runner:
    """One direction of a call; of "backward" the forward part is made before the clock starts.

    Attributes:
        outputs: of the last round.
        gradients: of the last round, unless it was a forward alone.
    """

    call: Call
    direction: str
    outputs: dict[str, Tensor] | None = None
    gradients: Mapping[str, tuple[Tensor | None, ...]] = field(default_factory=dict)

    def prepare(self) -> None:
        """New copies of the scene's numbers, which this implementation has not seen."""
        self.let_go()
        self.call.renew()
        if self.direction == "backward":
            self.outputs = self.call.outputs()

    def go(self) -> None:
        """What is timed."""
        if self.direction == "forward":
            with torch.no_grad():
                self.outputs = self.call.outputs()
            return
        if self.outputs is None:
            self.outputs = self.call.outputs()
        self.gradients = self.call.gradients(self.outputs)

    def round(self) -> None:
        self.prepare()
        self.go()

    def let_go(self) -> None:
        """Of what the last round returned, so that the next one allocates anew."""
        self.outputs, self.gradients = None, {}

    def returned(self) -> Iterator[tuple[str, Tensor]]:
        """All that the last round returned, as it is."""
        yield from (self.outputs or {}).items()
        yield from ((name, part) for name, parts in self.gradients.items() for part in parts if part is not None)

    def made_of_arguments(self) -> set[str]:
        """The outputs that share memory with an input."""
        inputs = {tensor.untyped_storage().data_ptr() for tensor in self.call.inputs.values()}
        return {n for n, t in (self.outputs or {}).items() if t.numel() and t.untyped_storage().data_ptr() in inputs}

    def results(self) -> dict[str, Tensor]:
        """Of the last round: outputs and gradients by name."""
        return {**{n: t.detach() for n, t in (self.outputs or {}).items()}, **joined(self.gradients)}


@dataclass
class Judge:
    """Compares the target's results of each round with the reference's.

    Attributes:
        by_norm: whether two right implementations are near by norm (`session.comparable`).
        allowed: how far each share of the elements of a result may be off.
        worst: the largest distance by norm so far.
        glanced: which elements were read when the clock stopped, and what they were.
    """

    own: Runner
    reference: Runner
    by_norm: bool = True
    allowed: Limits = field(default_factory=dict)
    worst: float = 0.0
    glanced: list[tuple[str, Tensor, Tensor, Tensor]] = field(default_factory=list)

    def measure_limits(self) -> None:
        """From one call of the reference with each argument and parameter moved by a rounding."""
        scene, direction = self.reference.call.scene, self.reference.direction
        self.reference.round()
        right = self.reference.results()
        scene.output_bytes = sum(tensor.nbytes for tensor in (self.reference.outputs or {}).values())
        moved = Runner(make_call(scene.rounded(), reference_of(scene.operation)), direction)
        moved.round()
        self.allowed = limits(moved.results(), right)
        self.reference.let_go()

    def renew(self) -> None:
        """New contents, of which the target gets copies of its own."""
        self.reference.call.scene.renew()
        self.own.prepare()

    def glance(self) -> None:
        """Reads some of what the target returned before anything else is done: it has to be there by now."""
        self.glanced = []
        for name, tensor in self.own.returned():
            require_plain(name, tensor)
            flat = tensor.detach().reshape(-1)
            places = torch.randint(max(1, flat.numel()), (min(GLANCES, flat.numel()),), device=flat.device)
            self.glanced.append((name, tensor, places, flat[places]))

    def compare(self) -> None:
        """After both turns.

        Raises:
            Disagrees: what the target returned is not right, was not there in time, or cost it an argument.
        """
        for name, tensor, places, then in self.glanced:
            if not torch.equal(tensor.detach().reshape(-1)[places].nan_to_num(), then.nan_to_num()):
                raise Disagrees(f"{name} went on changing after the call had returned")
        given = self.reference.call.scene.given.inputs
        for name, tensor in self.own.call.inputs.items():
            if not torch.equal(tensor, given[name]):
                raise Disagrees(f"the call changed its argument {name}")
        for name in sorted(self.own.made_of_arguments() - self.reference.made_of_arguments()):
            raise Disagrees(f"{name} lies in the memory of an argument")
        apart = require_agreement(self.own.results(), self.reference.results(), self.allowed, self.by_norm)
        self.worst = max(self.worst, apart)
        self.glanced = []
        self.own.let_go()
        self.reference.let_go()

    def turn(self) -> None:
        """One round of both that is not timed."""
        self.renew()
        self.own.go()
        self.glance()
        self.reference.round()
        self.compare()


def race(benchmark: BenchmarkFixture, judge: Judge, clock: Clock, device: str, seconds: float) -> list[float]:
    """Rounds of both for about so many seconds: the target's go to pytest-benchmark, the reference's are returned.

    The target goes first: of the reference's turn it can learn nothing.

    Raises:
        Disagrees: a round's results are not right.
    """
    own, reference, fill = judge.own, judge.reference, cache_filler(device)
    judge.measure_limits()
    judge.turn()  # warm-up
    once = timed(judge.turn, clock)
    beside: list[float] = []

    def begin() -> None:
        judge.renew()
        fill()

    def end() -> None:
        judge.glance()
        reference.prepare()
        fill()
        beside.append(timed(reference.go, clock))
        judge.compare()

    benchmark.pedantic(own.go, setup=begin, teardown=end, rounds=rounds_in(seconds, once))
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
