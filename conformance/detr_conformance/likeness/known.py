"""What the reference and the mutants of an operation return for plain calls: computed when asked for, and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from detr_conformance.harness.case import Case
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.subject import Settings
from detr_conformance.isolation import ambient
from detr_conformance.likeness.closeness import is_right
from detr_conformance.likeness.probes import limits, plain_call, probes
from detr_conformance.likeness.store import Store
from detr_conformance.likeness.traces import Trace, Traced, traced
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.running.mutants import MUTANTS

REFERENCE = "reference"  # no mutant is called so


@dataclass(frozen=True)
class Call:
    """A plain call, and the subject of the target that makes it."""

    case: Case
    like: Traced


@dataclass
class Known:
    """The probes of an operation, after them calls of a run's own, and what is known of all of these.

    Attributes:
        like: a target's subject, in whose dtype and with whose features and variants the probes are asked.
        store: where results of probes are kept between runs; None keeps them for this one.
        most: of the probes, how many are asked.
        own: the run's own calls.
    """

    like: Traced
    store: Store | None = None
    most: int | None = None
    own: Sequence[Call] = ()
    _limits: dict[int, dict[str, Expectation]] = field(default_factory=dict)
    _traces: dict[str, dict[int, Trace | None]] = field(default_factory=dict)
    _new: set[str] = field(default_factory=set)  # what is not yet in the store

    def __post_init__(self) -> None:
        if self.store:
            self._limits |= self.store.limits()

    @cached_property
    def calls(self) -> list[Call]:
        like = replace(self.like, settings=Settings("smoke", shrink=False))  # the same in every run
        fixed = probes(here(like, self._reference))[: self.most]
        return [Call(case, like) for case in fixed] + list(self.own)

    @property
    def probes(self) -> int:
        return len(self.calls) - len(self.own)

    @property
    def _reference(self) -> Callable[..., Any]:
        return resolve(OPERATIONS[self.like.operation].reference)  # type: ignore[no-any-return]

    def limits(self, number: int) -> Mapping[str, Expectation]:
        """What a right implementation may return."""
        if number not in self._limits:
            call = self.calls[number]
            self._limits[number] = limits(here(call.like, self._reference), call.case)
            self._new |= {"limits"} if number < self.probes else set()
        return self._limits[number]

    def target(self, number: int) -> Trace | None:
        """What the target returns; None if that is right."""
        call = self.calls[number]
        return self._if_wrong(traced(call.like, plain_call, call.case), number)

    def mutant(self, name: str, number: int) -> Trace | None:
        """What a mutant returns; None if that is right."""
        return self._trace(name, MUTANTS[name].build, number)

    def outputs(self, trace: Trace | None, number: int) -> Trace | None:
        """The outputs of a call that was wrong; None if they were right."""
        if trace is None or is_right(trace.outputs, self._of_reference(number).outputs, self.limits(number)):
            return None
        return trace.outputs

    def _if_wrong(self, trace: Trace, number: int) -> Trace | None:
        return None if is_right(trace, self._of_reference(number), self.limits(number)) else trace

    def _of_reference(self, number: int) -> Trace:
        found = self._trace(REFERENCE, lambda: self._reference, number)
        assert found is not None
        return found

    def _trace(self, name: str, build: Callable[[], Callable[..., Any]], number: int) -> Trace | None:
        if name not in self._traces:
            self._traces[name] = self.store.traces(name) if self.store else {}
        of_name = self._traces[name]
        if number not in of_name:
            call = self.calls[number]
            with ambient.kept():
                trace = traced(here(call.like, build()), plain_call, call.case)
            of_name[number] = trace if name == REFERENCE else self._if_wrong(trace, number)
            self._new |= {name} if number < self.probes else set()
        return of_name[number]

    def save(self) -> None:
        """Keeps what was computed of the probes for another run."""
        if self.store is None:
            return
        for name in self._new:
            if name == "limits":
                self.store.keep_limits(self._of_probes(self._limits))
            else:
                self.store.keep_traces(name, self._of_probes(self._traces[name]))
        self._new.clear()

    def _of_probes(self, found: Mapping[int, Any]) -> dict[int, Any]:
        return {number: each for number, each in found.items() if number < self.probes}


def here(like: Traced, implementation: Callable[..., Any]) -> Traced:
    """An implementation of this process, asked on the CPU as a target is."""
    settings = replace(like.settings, shrink=False, replay=None, calls=None)
    return Traced(like.operation, implementation, like.dtype, "cpu", like.features, like.variants, settings=settings)
