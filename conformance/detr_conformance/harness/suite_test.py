"""How a test of the suite is written: a property of one case, the clauses it covers, and where its cases come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis.strategies import SearchStrategy

from detr_conformance.harness.case import Case

if TYPE_CHECKING:
    from detr_conformance.harness.subject import Subject

Cases = Iterable[Case] | SearchStrategy[Case]
ALL = ("float64", "float32", "float16", "bfloat16")
HALF = ("float16", "bfloat16")
OWN_TESTS = ("training",)  # profiles that run tests of their own, and those alone


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
) -> Callable[[Callable[[Subject, Case], None]], Callable[[Subject], None]]:
    """Marks a property `(subject, case)` as the test of one or more clauses."""

    def decorate(property: Callable[[Subject, Case], None]) -> Callable[[Subject], None]:
        def test(subject: Subject) -> None:
            subject.decide(test.suite_test)  # type: ignore[attr-defined]

        test.__name__, test.__doc__, test.__module__ = (
            property.__name__,
            property.__doc__,
            property.__module__,
        )
        test.suite_test = SuiteTest(  # type: ignore[attr-defined]
            property.__name__, property, clauses, cases, dtypes, feature, once, share, profile
        )
        return test

    return decorate
