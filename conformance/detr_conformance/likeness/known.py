"""What the reference and the mutants of an operation return for plain calls: computed when asked for, and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from detr_conformance.harness.case import Case
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.subject import Settings
from detr_conformance.isolation import ambient
from detr_conformance.likeness.closeness import is_right
from detr_conformance.likeness.probes import is_answered, key_of, limits, ordinary, plain_call, probes, smooth
from detr_conformance.likeness.store import Store
from detr_conformance.likeness.traces import Trace, Traced, traced
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.running.mutants import MUTANTS, TWINS, Twin

REFERENCE, LIMITS = "reference", "limits"  # no mutants are called so
FIXED = Settings("smoke", shrink=False)  # in which probes are asked, whatever the run's


@dataclass(frozen=True)
class Call:
    """A plain call, and a target's subject that makes it; on a kink gradients are nobody's mistake, and left out."""

    case: Case
    like: Traced
    smooth: bool = True


@dataclass
class Known:
    """Of an operation: its probes, and what is known of these and of other calls.

    Attributes:
        like: a subject, in whose dtype and with whose features and variants the probes are asked.
        store: where results of probes are kept between runs; None keeps them for this one.
        most: of the probes, how many are asked.
    """

    like: Traced
    store: Store | None = None
    most: int | None = None
    _limits: dict[str, dict[str, Expectation]] = field(default_factory=dict)
    _traces: dict[str, dict[str, Trace | None]] = field(default_factory=dict)
    _new: set[str] = field(default_factory=set)  # what is not yet in the store

    def __post_init__(self) -> None:
        if self.store:
            self._limits |= self.store.limits()

    @cached_property
    def probes(self) -> list[Case]:
        """Without those on which a twin differs: there more is right than the reference does."""
        found = probes(replace(here(self.like, self._reference), settings=FIXED))[: self.most]
        own = [twin for twin in TWINS.values() if twin.operation == self.like.operation]
        return [case for case in found if all(self._agrees(twin, self._probe(case, self.like)) for twin in own)]

    def calls(self, like: Traced) -> list[Call]:
        """The probes as calls of a target, whatever its run's settings."""
        return [self._probe(case, like) for case in self.probes]

    def call(self, case: Case, like: Traced) -> Call | None:
        """Any other case as a call; None if what comes of it is everybody's own affair."""
        if not ordinary(case) or not is_answered(here(like, self._reference), case):
            return None
        return Call(case, like, smooth(like, case))

    def _probe(self, case: Case, like: Traced) -> Call:
        return Call(case, replace(like, settings=FIXED))

    def _agrees(self, twin: Twin, call: Call) -> bool:
        return self._trace(twin.name, twin.build, call) is None

    @property
    def _reference(self) -> Callable[..., Any]:
        reference: Callable[..., Any] = resolve(OPERATIONS[self.like.operation].reference)
        return reference

    def limits(self, call: Call) -> Mapping[str, Expectation]:
        """What a right implementation may return."""
        key = key_of(call.case)
        if key not in self._limits:
            self._limits[key] = limits(here(call.like, self._reference), call.case)
            self._new.add(LIMITS)
        return self._limits[key]

    def target(self, call: Call) -> Trace | None:
        """What the target returns; None if that is right."""
        trace = self._if_wrong(traced(call.like, plain_call, call.case), call)
        return trace if call.smooth else self.outputs(trace, call)

    def mutant(self, name: str, call: Call) -> Trace | None:
        """What a mutant returns; None if that is right."""
        trace = self._trace(name, MUTANTS[name].build, call)
        return trace if call.smooth else self.outputs(trace, call)

    def outputs(self, trace: Trace | None, call: Call) -> Trace | None:
        """The outputs of a call that was wrong; None if they were right."""
        if trace is None or is_right(trace.outputs, self._of_reference(call).outputs, self.limits(call)):
            return None
        return trace.outputs

    def _if_wrong(self, trace: Trace, call: Call) -> Trace | None:
        return None if is_right(trace, self._of_reference(call), self.limits(call)) else trace

    def _of_reference(self, call: Call) -> Trace:
        found = self._trace(REFERENCE, lambda: self._reference, call)
        assert found is not None
        return found

    def _trace(self, name: str, build: Callable[[], Callable[..., Any]], call: Call) -> Trace | None:
        if name not in self._traces:
            self._traces[name] = self.store.traces(name) if self.store else {}
        of_name, key = self._traces[name], key_of(call.case)
        if key not in of_name:
            with ambient.kept():
                trace = traced(here(call.like, build()), plain_call, call.case)
            of_name[key] = trace if name == REFERENCE else self._if_wrong(trace, call)
            self._new.add(name)
        return of_name[key]

    def save(self) -> None:
        """Keeps what was computed of the probes for another run."""
        if self.store is None:
            return
        kept = {key_of(case) for case in self.probes}
        for name in self._new - {LIMITS}:
            self.store.keep_traces(name, {key: each for key, each in self._traces[name].items() if key in kept})
        if LIMITS in self._new:
            self.store.keep_limits({key: each for key, each in self._limits.items() if key in kept})
        self._new.clear()


def here(like: Traced, implementation: Callable[..., Any]) -> Traced:
    """An implementation of this process, asked on the CPU as a target is."""
    settings = replace(like.settings, shrink=False, replay=None, calls=None)
    return Traced(like.operation, implementation, like.dtype, "cpu", like.features, like.variants, settings=settings)
