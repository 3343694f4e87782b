"""How a test of the suite is written: a property of one case, the clauses it covers, and where its cases come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis.strategies import SearchStrategy

from detr_conformance.evidence.any_call import clause_of
from detr_conformance.harness.case import Case, LazyCases, mixed_seed
from detr_conformance.harness.drive import Cases, Failure, Undecided, reduced, run_cases
from detr_conformance.harness.few_shapes.budget import LeftOut, NotTried
from detr_conformance.harness.few_shapes.drawing import rounded
from detr_conformance.harness.mismatch import PLAIN, Mismatch, SuiteError
from detr_conformance.harness.subject import Calls, NotProvided, Subject
from detr_conformance.isolation.process import NotDone
from detr_conformance.target import DTYPES

LARGEST_CALL = 1 << 20  # elements of a call that is judged as a whole
ALL = ("float64", "float32", "float16", "bfloat16")
HALF = ("float16", "bfloat16")
OWN_TESTS = ("full-size", "training")  # profiles that run tests of their own, and those alone
REPLAYS = 5  # of one case: whether it fails may change from call to call
EXAMPLES = {"smoke": 2, "standard": 16, "thorough": 200, "full-size": 16, "training": 16}


@dataclass(frozen=True)
class SuiteTest:
    """A test of the suite.

    Attributes:
        property: takes the subject and one case; raises Mismatch if the clause does not hold there.
        clauses: ids of the clauses it decides.
        cases: subject -> the cases: a list, or a Hypothesis strategy to draw from.
        dtypes: the claimed dtypes it applies to.
        feature: the feature a target must have for the clause to apply.
        once: run for one dtype only (the clause does not depend on it).
        share: of the profile's number of drawn cases, how many this test draws (expensive ones less than 1).
        profile: the one profile that runs this test, and no others; None for the tests of all other profiles.
        costly: takes seconds; of thousands of mutants and twins it is asked only where it is what they are about.
        any_call: asks nothing of a case but that it is a call, so that a recorded one serves as well.
        plain: judges the plain call of a case's numbers, where the clause is about how a call is made; if that is wrong
            already, the clause is undecided.
    """

    name: str
    property: Callable[[Subject, Case], None]
    clauses: tuple[str, ...]
    cases: Callable[[Subject], Cases]
    dtypes: tuple[str, ...]
    feature: str | None
    once: bool
    share: float
    profile: str | None = None
    costly: bool = False
    any_call: bool = False
    plain: Callable[[Subject, Case], None] | None = None

    def runs_in(self, profile: str) -> bool:
        """Whether a run of this profile asks it: a profile with tests of its own asks these alone."""
        return self.profile == (profile if profile in OWN_TESTS else None)


def covers(
    *clauses: str,
    cases: Callable[[Subject], Cases],
    dtypes: tuple[str, ...] = ALL,
    feature: str | None = None,
    once: bool = False,
    share: float = 1.0,
    profile: str | None = None,
    costly: bool = False,
    any_call: bool = False,
    plain: Callable[[Subject, Case], None] | None = None,
) -> Callable[[Callable[[Subject, Case], None]], Callable[[Subject], None]]:
    """Marks a property `(subject, case)` as the test of one or more clauses."""

    def decorate(property: Callable[[Subject, Case], None]) -> Callable[[Subject], None]:
        def test(subject: Subject) -> None:
            decide(subject, test.suite_test)  # type: ignore[attr-defined]

        test.__name__, test.__doc__, test.__module__ = (
            property.__name__,
            property.__doc__,
            property.__module__,
        )
        test.suite_test = SuiteTest(  # type: ignore[attr-defined]
            property.__name__, property, clauses, cases, dtypes, feature, once, share, profile, costly, any_call, plain
        )
        return test

    return decorate


def decide(subject: Subject, test: SuiteTest) -> None:
    """Runs a test over its cases, over recorded calls, or over the one case that is replayed.

    Raises:
        drive.Undecided: a case failed, and so does the plain call of its numbers.
        drive.Failure: a case failed.
    """
    try:
        _decide(subject, test)
    except Undecided:
        raise
    except Failure as failure:
        if undecided := plainly_wrong(subject, test, failure):
            raise undecided from failure
        raise


def plainly_wrong(subject: Subject, test: SuiteTest, failure: Failure) -> Undecided | None:
    """What is wrong with the plain call of the numbers of a case, where the test is about how a call is made."""
    case = failure.case
    if failure.mismatch.kind == PLAIN:
        return Undecided(case, failure.mismatch)
    if test.plain is None:
        return None
    asked = subject.replacing(subject.implementation)  # its counts are no part of the test's
    asked.forms = None
    try:
        asked.judged(test.plain, case.laid_out("contiguous"))
    except Mismatch as mismatch:
        # What any call is held to is decided by its own clause, where that is what the test is about.
        if clause_of(mismatch.kind, subject.operation) not in test.clauses:
            return Undecided(case, mismatch)
    except (SuiteError, NotDone):
        pass
    return None


def decide_again(subject: Subject, test: SuiteTest, case: Case) -> None:
    """Judges one case that failed before, several times; raises drive.Failure if any of them fails."""
    failures = []
    for _ in range(REPLAYS):
        try:
            subject.judged(test.property, case)
        except Mismatch as mismatch:
            failures.append(mismatch)
        subject.cases += 1
    if failures:
        if len(failures) < REPLAYS:
            failures[0].message += f" (not every time: {len(failures)} of {REPLAYS})"
        raise Failure(case, failures[0])


def _decide(subject: Subject, test: SuiteTest) -> None:
    settings = subject.settings
    if settings.replay is not None:
        decide_again(subject, test, settings.replay)
        return
    if settings.calls is not None:
        decide_calls(subject, test, settings.calls)
        return
    if subject.forms is not None:
        subject.forms.begin()
    with rounded(settings.seed if settings.few_shapes else None):
        source = _thinned(subject, test.cases(subject))
        examples = max(2, round(EXAMPLES[settings.profile] * test.share))
        subject.cases += run_cases(
            source,
            lambda case: _judged(subject, test, case),
            examples=examples,
            seed_value=mixed_seed(settings.seed, test.name),
            shrink=settings.shrink,
            search=settings.profile == "thorough",
            undecided=lambda failure: plainly_wrong(subject, test, failure),
        )
    if subject.forms is not None:
        subject.cases -= subject.forms.left_out
        if not subject.cases:
            raise NotTried("every case takes more forms of calls than few shapes allow")


def _judged(subject: Subject, test: SuiteTest, case: Case) -> float | None:
    """What a case found, or nothing if it is left out for its form."""
    forms = subject.forms
    if forms is None:
        return subject.judged(test.property, case)
    try:
        forms.begin_case(case)
        return subject.judged(test.property, case)
    except LeftOut:
        forms.left_out += 1
        return None


def _thinned(subject: Subject, cases: Cases) -> Cases:
    """In the smoke profile every fourth of the listed cases, another quarter in each dtype; otherwise all."""
    if subject.settings.profile != "smoke" or isinstance(cases, SearchStrategy):
        return cases
    listed = cases if isinstance(cases, LazyCases) else list(cases)
    return listed[DTYPES.index(subject.dtype) % max(1, len(listed)) :: 4]


def decide_calls(subject: Subject, test: SuiteTest, calls: Calls) -> None:
    """Runs a test over recorded calls; raises drive.Failure with the smallest part of one that still fails."""

    def check(case: Case) -> float | None:
        return subject.judged(test.property, case)

    for call in calls.cases:
        if call.size > LARGEST_CALL and not test.costly:
            continue
        try:
            check(call)
            subject.cases += 1
        except SuiteError:
            continue  # the clause is about other calls
        except Mismatch as mismatch:
            failure = Failure(call, mismatch)
            raise reduced(failure, check, calls.smaller) if subject.settings.shrink else failure from mismatch
    if not subject.cases:
        raise NotProvided("no recorded call is one that it is about, or they are too large to be judged as a whole")
