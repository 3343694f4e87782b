"""Runs a property over its cases; on failure looks for a smaller case, within a fixed number of attempts."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable

from hypothesis import HealthCheck, Phase, given, seed, settings, target
from hypothesis.errors import Flaky
from hypothesis.strategies import SearchStrategy

from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import Mismatch, SuiteError
from detr_conformance.isolation.process import NotDone

Cases = Iterable[Case] | SearchStrategy[Case]
SHRINK_ATTEMPTS = 60
SHRINK_SECONDS = 60.0  # over a whole run; only a safety net, since a clock would make reports differ

_shrinking_spent = 0.0


class _Enough(BaseException):
    """Leaves Hypothesis from inside a case; not an Exception, so that it is passed on at once."""


class Failure(Exception):
    """The smallest failing case found, and what was wrong with it."""

    def __init__(self, case: Case, mismatch: Mismatch) -> None:
        super().__init__(str(mismatch))
        self.case = case
        self.mismatch = mismatch


class Undecided(Failure):
    """A clause about how a call is made failed, where a case's plain call is wrong too, and is what is told."""


def run_cases(
    cases: Cases,
    check: Callable[[Case], float | None],
    *,
    examples: int,
    seed_value: int,
    shrink: bool,
    search: bool = False,
    undecided: Callable[[Failure], Undecided | None] = lambda _: None,
) -> int:
    """Checks every listed case, or `examples` drawn ones.

    Args:
        check: returns the case's largest error over its limit, where it has one.
        search: let Hypothesis look for cases of large error.
        undecided: what a failure comes to if something else is wrong already; then nothing smaller is looked for.

    Returns:
        How many cases were checked.

    Raises:
        Failure: some case failed; carries the smallest one found.
    """
    if isinstance(cases, SearchStrategy):
        how = {"examples": examples, "seed_value": seed_value}
        return _run_drawn(cases, check, **how, shrink=shrink, search=search, undecided=undecided)
    count = 0
    for case in cases:
        count += 1
        try:
            check(case)
        except Mismatch as mismatch:
            raise Failure(case, mismatch) from mismatch
    return count


def _run_drawn(
    strategy: SearchStrategy[Case],
    check: Callable[[Case], float | None],
    *,
    examples: int,
    seed_value: int,
    shrink: bool,
    search: bool,
    undecided: Callable[[Failure], Undecided | None],
) -> int:
    global _shrinking_spent
    count = 0
    smallest: Failure | None = None
    attempts = 0
    failed_at = 0.0

    def one(case: Case) -> None:
        nonlocal count, smallest, attempts, failed_at
        if smallest is not None:
            attempts += 1
            if attempts > SHRINK_ATTEMPTS or _shrinking_spent + time.monotonic() - failed_at > SHRINK_SECONDS:
                raise _Enough
        else:
            count += 1
        try:
            ratio = check(case)
        except Mismatch as mismatch:
            if smallest is None:
                failed_at = time.monotonic()
                smallest = undecided(Failure(case, mismatch))
                if smallest is not None:
                    raise _Enough from None
            if smallest is None or case.size <= smallest.case.size:
                smallest = Failure(case, mismatch)
            if not shrink:
                raise _Enough from None
            raise
        except NotDone:
            if smallest is None:
                raise
            raise _Enough from None  # something smaller would not be judged
        if search and ratio is not None:
            target(ratio)

    phases = (Phase.generate, Phase.target, Phase.shrink) if search else (Phase.generate, Phase.shrink)
    run = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )(seed(seed_value)(given(strategy)(one)))
    with contextlib.suppress(_Enough, Mismatch, Flaky):  # Flaky: a target that fails now and then has failed
        run()
    if smallest is not None:
        _shrinking_spent += time.monotonic() - failed_at
        raise smallest
    return count


def reduced(
    failure: Failure, check: Callable[[Case], float | None], smaller: Callable[[Case], Iterable[Case]]
) -> Failure:
    """The failure of the smallest part of its case that still fails, within a fixed number of attempts."""
    left = SHRINK_ATTEMPTS
    found = True
    while found and left > 0:
        found = False
        for part in itertools.islice(smaller(failure.case), left):
            left -= 1
            try:
                check(part)
            except SuiteError:
                continue
            except Mismatch as mismatch:
                failure, found = Failure(part, mismatch), True
                break
    return failure
