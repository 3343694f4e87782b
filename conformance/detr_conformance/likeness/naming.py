"""The mutants that a failing target computes the same as.

Most mistakes show in plain calls: then the mutant must return the same in all of them, right or wrong. Of the others a
plain call is right: then it is what the failed tests do with target and mutant that must be the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from detr_conformance.harness.case import Case
from detr_conformance.isolation import ambient
from detr_conformance.isolation.process import NotDone
from detr_conformance.likeness.closeness import alike, rounding_of
from detr_conformance.likeness.known import Call, Known, here
from detr_conformance.likeness.traces import PASSED, Trace, Traced, traced
from detr_conformance.running.mutants import MUTANTS
from detr_conformance.running.trial import Judge, suite_test_of

Tick = Callable[[], None]


@dataclass(frozen=True)
class Failed:
    """A test that the target failed, the case that showed it, and a subject to ask it of again."""

    judge: Judge
    case: Case
    like: Traced

    def again(self, subject: Traced) -> Trace:
        return traced(subject, suite_test_of(self.judge).property, self.case)

    def mutant(self, name: str) -> Trace:
        with ambient.kept():
            return self.again(here(self.like, MUTANTS[name].build()))


@dataclass(frozen=True)
class Found:
    """What the target returned for a plain call; None if that is right."""

    call: Call
    trace: Trace | None

    @property
    def is_finite(self) -> bool:
        return self.trace is None or all(bool(result.isfinite().all()) for _, result in self.trace.results)


@dataclass(frozen=True)
class Likeness:
    """A class of mutants that nothing here tells apart, and on how many cases and probes the target is like them."""

    names: tuple[str, ...]
    cases: int
    probes: int


def likeness(
    known: Known, like: Traced, failed: Sequence[Failed], candidates: Iterable[str], tick: Tick = lambda: None
) -> Likeness | None:
    """The candidates that a target is like; None where there is none.

    Args:
        like: the target's subject for the probes.
        failed: what it failed in.
        candidates: names of mutants.
        tick: called after each step, see `steps`.
    """
    names = list(candidates)
    own = [call for each in failed if (call := known.call(each.case, each.like)) is not None]
    found = []
    for call in [*known.calls(like), *own]:
        with contextlib.suppress(NotDone):  # what a runner refuses tells nothing
            found.append(Found(call, known.target(call)))
        tick()
    if any(each.trace is not None and each.trace.results for each in found):
        names = _by_results(known, found, names, tick)
        names = _that_fail_alike(failed, names, tick) or names if len(names) > 1 else names
        cases = len(own)
    else:
        names = _that_fail_alike(failed, names, tick) if failed else []
        names = [name for name in names if all(_same(known, each, name) for each in found)]
        cases = len(failed)
    return Likeness(tuple(names), cases, len(known.probes)) if names else None


def steps(known: Known, failed: Sequence[Failed]) -> int:
    """At most so many are made."""
    return 2 * (len(known.probes) + len(failed)) + len(failed)


def _by_results(known: Known, found: Sequence[Found], candidates: list[str], tick: Tick) -> list[str]:
    """Those with the same results in all calls; if there are none, and outputs are wrong, those with the same outputs.

    The gradients of a wrong output may be those of what it should be, or of what it is. Where the target raises, there
    is nothing to compare, and little where an ordinary call has outputs that are not finite: these are other mistakes.
    """
    returned = [each for each in found if each.trace is None or each.trace.results]
    outputs = [Found(each.call, known.outputs(each.trace, each.call)) for each in returned]
    names, by_outputs = candidates, candidates if any(each.trace and each.is_finite for each in outputs) else []
    pairs = zip(returned, outputs, strict=True)
    for whole, output in sorted(pairs, key=lambda pair: (pair[1].trace is None, pair[0].trace is None)):
        names = [name for name in names if _same(known, whole, name)]
        if output.is_finite:
            by_outputs = [name for name in by_outputs if _same_outputs(known, output, name)]
        tick()
    return names or by_outputs


def _that_fail_alike(failed: Sequence[Failed], names: list[str], tick: Tick) -> list[str]:
    """Those that fail in the same way in all that the target failed; none if it fails now and then."""
    for each in failed:
        try:
            own = each.again(each.like)
        except NotDone:
            continue
        if own.end == PASSED:
            return []
        names = [name for name in names if alike(each.mutant(name), own, {})]
        tick()
    return names


def _same(known: Known, own: Found, name: str) -> bool:
    return _alike(known, own, known.mutant(name, own.call))


def _same_outputs(known: Known, own: Found, name: str) -> bool:
    return _alike(known, own, known.outputs(known.mutant(name, own.call), own.call))


def _alike(known: Known, own: Found, theirs: Trace | None) -> bool:
    if own.trace is None or theirs is None:
        return own.trace is theirs
    return alike(theirs, own.trace, known.limits(own.call), rounding_of(own.call.case))


def still_possible(operation: str, verdicts: Mapping[str, str]) -> list[str]:
    """The mutants of an operation whose own clause the target did not pass."""
    return [
        mutant.name
        for mutant in MUTANTS.values()
        if mutant.operation == operation and verdicts.get(mutant.rejects) != "pass"
    ]
