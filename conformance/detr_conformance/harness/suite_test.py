"""How a test of the suite is written: a property of one case, the clauses it covers, and where its cases come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis.strategies import SearchStrategy

from detr_conformance.harness.case import Case, LazyCases, mixed_seed
from detr_conformance.harness.drive import Cases, run_cases
from detr_conformance.harness.few_shapes.budget import LeftOut, NotTried
from detr_conformance.harness.few_shapes.drawing import rounded
from detr_conformance.harness.subject import Subject
from detr_conformance.target import DTYPES

ALL = ("float64", "float32", "float16", "bfloat16")
HALF = ("float16", "bfloat16")
OWN_TESTS = ("full-size", "training")  # profiles that run tests of their own, and those alone
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
            property.__name__, property, clauses, cases, dtypes, feature, once, share, profile, costly
        )
        return test

    return decorate


def decide(subject: Subject, test: SuiteTest) -> None:
    """Runs a test over its cases (or over the one being replayed); raises drive.Failure."""
    settings = subject.settings
    if subject.forms is not None:
        subject.forms.begin()
    with rounded(settings.seed if settings.few_shapes else None):
        source = [settings.replay] if settings.replay is not None else _thinned(subject, test.cases(subject))
        examples = max(2, round(EXAMPLES[settings.profile] * test.share))
        subject.cases += run_cases(
            source,
            lambda case: _judged(subject, test, case),
            examples=examples,
            seed_value=mixed_seed(settings.seed, test.name),
            shrink=settings.shrink,
            search=settings.profile == "thorough",
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
