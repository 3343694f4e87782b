"""What becomes a vector: comparisons of results of calls that can be repeated by themselves, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from detr_conformance.harness.block import expectations, forward, make, run
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.every_block.cases.representative import one
from detr_conformance.vectors.answers import tags
from detr_conformance.vectors.recording import Asked, Recorded, recorded

LIMIT = torch.tensor(1e-3, dtype=torch.float64)
Property = Callable[[Subject, Case], None]


def play(property: Property, operation: str = "mlp", dtype: str = "float32") -> Recorded:
    """A planted property on the first case of a block."""
    test = covers("BLK-1", cases=one)(property).suite_test  # type: ignore[attr-defined]
    (found,) = recorded(Asked(operation, dtype, "planted", test), "standard", 0)
    return found


def right(subject: Subject, case: Case) -> tuple[Tensor, Tensor]:
    wanted = expectations(subject, case, backward=False)["output"]
    return wanted.expected, wanted.limit


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_an_output_and_its_gradients_are_recognised(dtype: str) -> None:
    def whole(subject: Subject, case: Case) -> None:
        result, wanted = run(subject, case), expectations(subject, case)
        subject.compare("output", result.output, wanted["output"].expected, wanted["output"].limit)
        gradient = subject.gradient("x", result.gradients)
        subject.compare("grad_x", gradient, wanted["x"].expected, wanted["x"].limit)

    found = play(whole, dtype=dtype)
    (vector,) = found.vectors
    assert found.whole
    assert [(check.of, check.share) for check in vector.checks.values()] == [("output", 1.0), ("grad_x", 1.0)]
    assert vector.flags == ["backward"]
    assert {"x", "layers.0.weight"} <= set(vector.gradients)


def test_a_part_in_another_order_is_recognised_element_by_element() -> None:
    def part(subject: Subject, case: Case) -> None:
        expected, limit = right(subject, case)
        rows = torch.zeros(expected.shape[:-1], dtype=torch.bool)
        rows[0] = True
        output = forward(subject, case)
        subject.compare("output", output[rows].flip(0).double(), expected[rows].flip(0), limit[rows].flip(0))

    (vector,) = play(part).vectors
    (check,) = vector.checks.values()
    assert check.limit is not None
    assert bool(check.limit[0].isfinite().all())
    assert bool(check.limit[1:].isinf().all())
    assert 0 < check.share < 1
    got = vector.call.results["output"].double()
    assert bool(((got - check.expected).abs() <= check.limit).all())


def test_several_outputs_are_taken_apart() -> None:
    def joined(subject: Subject, case: Case) -> None:
        expected, limit = right(subject, case)
        subject.compare("output", forward(subject, case), expected, limit)

    (vector,) = play(joined, "encoder_proposals").vectors
    assert {check.of for check in vector.checks.values()} == {"proposals", "memory"}


def doubled(subject: Subject, case: Case) -> None:
    expected, limit = right(subject, case)
    subject.compare("output", 2 * forward(subject, case), 2 * expected, 2 * limit)


def from_the_answer(subject: Subject, case: Case) -> None:
    output = forward(subject, case)
    subject.compare_exactly("output", forward(subject, case), output.detach())


def of_a_second_call(subject: Subject, case: Case) -> None:
    made = make(subject, case)
    forward(subject, case, made)
    subject.compare("output", forward(subject, case, made), *right(subject, case))


def under_no_grad(subject: Subject, case: Case) -> None:
    with torch.no_grad():
        subject.compare("output", forward(subject, case), *right(subject, case))


def of_changed_parameters(subject: Subject, case: Case) -> None:
    made = make(subject, case)
    with torch.no_grad():
        next(made.parameters()).add_(1)
    subject.compare("output", forward(subject, case, made), *right(subject, case))


def with_more_than_comparisons(subject: Subject, case: Case) -> None:
    output = forward(subject, case)
    subject.compare("output", output, *right(subject, case))
    expect(output.ndim > 0, "a number")


@pytest.mark.parametrize(
    ("property", "said"),
    [
        (doubled, "computed from the results"),
        (from_the_answer, "depends on the answer itself"),
        (of_a_second_call, "not the first of its module"),
        (under_no_grad, "under grad mode"),
        (of_changed_parameters, "whose parameters were changed"),
        (with_more_than_comparisons, "asks for more than comparisons"),
    ],
)
def test_what_no_vector_says_is_said_in_words(property: Property, said: str) -> None:
    found = play(property)
    assert not found.whole
    assert [word for word in found.words if said in word] == found.words


def test_what_is_expected_of_other_elements_only_is_not_judged() -> None:
    """An oracle that knows some elements and takes the others from the answer."""

    def some(subject: Subject, case: Case) -> None:
        expected, limit = right(subject, case)
        output = forward(subject, case)
        known = output.detach().double().clone()
        known[0] = expected[0]
        subject.compare("output", output, known, limit)

    (vector,) = play(some).vectors
    (check,) = vector.checks.values()
    assert check.limit is not None
    assert bool(check.limit[0].isfinite().all())
    assert bool(check.limit[1:].isinf().all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_no_tag_comes_twice(dtype: torch.dtype) -> None:
    numbers = tags(dtype, 0, 2000)
    assert len(numbers.unique()) == 2000
    assert not bool(torch.isin(tags(dtype, 2000, 2500), numbers).any())
