"""The mutants that a failing target computes the same as.

Most mistakes show in plain calls: then the mutant must return the same in all of them, right or wrong. Of the others a
plain call is right: then it is what the failed tests do with target and mutant that must be the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from detr_conformance.harness.case import Case
from detr_conformance.isolation import ambient
from detr_conformance.likeness.closeness import alike, rounding_of
from detr_conformance.likeness.known import Call, Known, here
from detr_conformance.likeness.probes import ordinary
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
class Likeness:
    """A class of mutants that nothing here tells apart, and on how many cases and probes the target is like them."""

    names: tuple[str, ...]
    cases: int
    probes: int


def plain_calls_of(failed: Iterable[Failed]) -> list[Call]:
    """The cases that failed, as far as a call of ordinary numbers has one right result."""
    return [Call(each.case, each.like) for each in failed if ordinary(each.case)]


def likeness(
    known: Known, failed: Sequence[Failed], candidates: Iterable[str], tick: Tick = lambda: None
) -> Likeness | None:
    """The candidates that the target is like; None where there is none.

    Args:
        known: its own calls are `plain_calls_of(failed)`.
        candidates: names of mutants.
        tick: called after each step, of at most twice as many as there are failures and calls.
    """
    plain: list[Trace | None] = []
    for number in range(len(known.calls)):
        plain.append(known.target(number))
        tick()
    candidates = list(candidates)
    if any(trace is not None and trace.results for trace in plain):
        names = _by_results(known, plain, candidates, tick)
        names = _that_fail_alike(failed, names, tick) or names if len(names) > 1 else names
        cases = len(known.own)
    else:
        names = _that_fail_alike(failed, candidates, tick) if failed else []
        names = [name for name in names if all(_same(known, plain, name, n) for n in range(len(plain)))]
        cases = len(failed)
    return Likeness(tuple(names), cases, known.probes) if names else None


def _by_results(known: Known, plain: Sequence[Trace | None], candidates: list[str], tick: Tick) -> list[str]:
    """Those with the same results in all calls; if there are none, and outputs are wrong, those with the same outputs.

    The gradients of a wrong output may be those of what it should be, or of what it is. Where the target raises, there
    is nothing to compare, and little where an ordinary call has outputs that are not finite: these are other mistakes.
    """
    returned = [number for number, trace in enumerate(plain) if trace is None or trace.results]
    outputs = [known.outputs(trace, number) for number, trace in enumerate(plain)]
    shown = [number for number in returned if outputs[number] is not None and _is_finite(outputs[number])]
    names, by_outputs = candidates, candidates if shown else []
    for number in sorted(returned, key=lambda number: (outputs[number] is None, plain[number] is None)):
        names = [name for name in names if _same(known, plain, name, number)]
        if _is_finite(outputs[number]):
            by_outputs = [name for name in by_outputs if _same_outputs(known, outputs, name, number)]
        tick()
    return names or by_outputs


def _that_fail_alike(failed: Sequence[Failed], names: list[str], tick: Tick) -> list[str]:
    """Those that fail in the same way in all that the target failed; none if it fails now and then."""
    for each in failed:
        own = each.again(each.like)
        if own.end == PASSED:
            return []
        names = [name for name in names if alike(each.mutant(name), own, {})]
        tick()
    return names


def _is_finite(trace: Trace | None) -> bool:
    return trace is None or all(bool(result.isfinite().all()) for _, result in trace.results)


def _same(known: Known, plain: Sequence[Trace | None], name: str, number: int) -> bool:
    return _alike(known, plain[number], known.mutant(name, number), number)


def _same_outputs(known: Known, outputs: Sequence[Trace | None], name: str, number: int) -> bool:
    return _alike(known, outputs[number], known.outputs(known.mutant(name, number), number), number)


def _alike(known: Known, own: Trace | None, theirs: Trace | None, number: int) -> bool:
    if own is None or theirs is None:
        return own is theirs
    return alike(theirs, own, known.limits(number), rounding_of(known.calls[number].case))


def still_possible(operation: str, verdicts: Mapping[str, str]) -> list[str]:
    """The mutants of an operation whose own clause the target did not pass."""
    return [
        mutant.name
        for mutant in MUTANTS.values()
        if mutant.operation == operation and verdicts.get(mutant.rejects) != "pass"
    ]
