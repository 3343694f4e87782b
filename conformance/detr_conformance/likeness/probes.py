"""The fixed calls of an operation on which implementations are told apart, and what a right one may return there.

They are the first cases of the operation's own tests: each was made to show a class of mistakes.
"""

from __future__ import annotations

from itertools import islice

from hypothesis.strategies import SearchStrategy

from detr_conformance.harness import block
from detr_conformance.harness.case import PARAMETER, Case, digest_of, mixed_seed
from detr_conformance.harness.drive import run_cases
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.mismatch import Mismatch, Raised, SuiteError
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import SuiteTest
from detr_conformance.operations import BLOCKS
from detr_conformance.running.trial import exempt, suite_test_of, suite_tests
from detr_conformance.stages import STAGES
from detr_conformance.topics.deformable_attention.checks.agreement import rounding_of
from detr_conformance.topics.deformable_attention.checks.oracle import expectations, smooth_share

LARGEST = 1 << 15  # elements of a call
LARGEST_MODULE = 1 << 18  # with its parameters
LARGEST_NUMBER = 1e4
OF_A_MODEL = 6  # calls: each takes a tenth of a second, and its limits seconds
DRAWN = 2  # the first that is drawn is the smallest there is


def probes(subject: Subject) -> list[Case]:
    """Of the reference's subject: the same for every implementation with these variants, in this dtype."""
    found: dict[str, Case] = {}
    for judge in suite_tests()[subject.operation]:
        test = suite_test_of(judge)
        if test.profile or test.costly or exempt(subject.operation, test) or subject.dtype not in test.dtypes:
            continue
        for case in _first(subject, test):
            if _is_small(case) and ordinary(case) and smooth(subject, case) and is_answered(subject, case):
                found.setdefault(key_of(case), case)
    return list(islice(found.values(), OF_A_MODEL if subject.operation in STAGES else None))


def key_of(case: Case) -> str:
    """The same for cases with the same numbers, settings and layout."""
    return f"{digest_of(case)[:32]}-{case.layout}"


def _is_small(case: Case) -> bool:
    parameters = sum(tensor.numel() for name, tensor in case.tensors.items() if name.startswith(PARAMETER))
    return case.size <= LARGEST_MODULE and (case.size - parameters <= LARGEST or case.size < 2 * parameters)


def is_answered(subject: Subject, case: Case) -> bool:
    """Whether the reference returns anything: how a call is refused is everybody's own affair."""
    try:
        plain_call(subject, case)
    except Raised:
        return False
    except Mismatch:  # no gradient where none is possible
        return True
    return True


def _first(subject: Subject, test: SuiteTest) -> list[Case]:
    """One case of a test; none where the test is not about the operation after all."""
    try:
        cases = test.cases(subject)
        if not isinstance(cases, SearchStrategy):
            return list(islice(cases, 1))
        drawn: list[Case] = []
        run_cases(cases, drawn.append, examples=DRAWN, seed_value=mixed_seed(test.name), shrink=False)
        return drawn[-1:]
    except SuiteError:
        return []


def smooth(subject: Subject, case: Case) -> bool:
    """Whether no sample lies on a kink, where several gradients are right."""
    return subject.operation != "ms_deform_attn" or smooth_share(case, rounding_of(subject)) == 1


def ordinary(case: Case) -> bool:
    """Whether all numbers are finite and of no extraordinary size: of others it is the code that decides, not the idea,
    what comes of them."""
    floating = [tensor for tensor in case.tensors.values() if tensor.is_floating_point() and tensor.numel()]
    return all(bool((tensor.abs() <= LARGEST_NUMBER).all()) for tensor in floating)


def plain_call(subject: Subject, case: Case) -> None:
    """A property that asks nothing: the call, and where backward is claimed the gradients."""
    if subject.operation == "ms_deform_attn":
        subject.run(case) if subject.backward else subject.forward(case)
    elif subject.backward:
        block.run(subject, case)
    else:
        block.forward(subject, case)


def limits(subject: Subject, case: Case) -> dict[str, Expectation]:
    """Right results and their limits by the operation's ordinary oracle; none where it has none for such a call."""
    try:
        if subject.operation == "ms_deform_attn":
            return expectations(case, rounding_of(subject), subject.backward)
        if subject.operation not in BLOCKS:
            return {}  # random, or integers alone
        found = dict(block.expectations(subject, case, backward=subject.backward))
    except (SuiteError, ValueError):
        return {}
    joined = found.pop("output")
    if case.shapes is None:
        return {"output": joined} | {f"grad_{name}": each for name, each in found.items()}
    right, limit = (block.parts(case, each) for each in (joined.expected, joined.limit))
    return {name: Expectation(right[name], limit[name]) for name in right} | {
        f"grad_{name}": each for name, each in found.items()
    }
