"""The measured limits of blocks are neither too tight nor too loose, at every seed and for every operation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detr_conformance.harness import block
from detr_conformance.harness.block import compare_result, expectations, forward, run
from detr_conformance.harness.block_case import call_with, inputs_of, reference_callable
from detr_conformance.harness.case import TORCH_DTYPES, Case
from detr_conformance.harness.mismatch import Mismatch
from detr_conformance.harness.packing import packed
from detr_conformance.harness.random_rounding import spread
from detr_conformance.harness.subject import Settings, Subject
from detr_conformance.operations import BLOCKS, OPERATIONS
from detr_conformance.targets.reference import reference
from detr_conformance.topics.every_block.cases.representative import representative

SEEDS = range(4)
COARSER = {"float64": torch.float32, "float32": torch.float16}

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def subject_of(operation: str, dtype: str, seed: int = 0) -> Subject:
    return Subject(operation, reference(operation), dtype, settings=Settings(seed=seed))


def in_dtype(subject: Subject, case: Case, dtype: torch.dtype) -> Tensor:
    """The reference computed in another dtype, with its result in the claimed one."""
    made = reference_callable(subject.operation, case, dtype)
    inputs = inputs_of(subject.operation, case)
    rounded = {name: t.to(dtype) if t.is_floating_point() else t for name, t in inputs.items()}
    with torch.no_grad():
        output = packed(call_with(subject.operation, made, rounded), case.shapes)
        return output.to(TORCH_DTYPES[subject.dtype])


JUDGED = [(operation, dtype) for operation in BLOCKS for dtype in OPERATIONS[operation].dtypes]


@pytest.mark.parametrize(("operation", "dtype"), JUDGED)
def test_the_reference_stays_well_inside(operation: str, dtype: str) -> None:
    for seed in SEEDS:
        subject = subject_of(operation, dtype, seed)
        for case in representative(subject):
            right = expectations(subject, case, backward=False, precise=True)["output"]
            subject.compare("output", forward(subject, case), right.expected, right.limit)
        assert subject.worst_ratio is not None
        assert subject.worst_ratio < 0.8


@pytest.mark.parametrize("dtype", COARSER)
@pytest.mark.parametrize("operation", BLOCKS)
def test_the_next_lower_precision_leaves_them(operation: str, dtype: str) -> None:
    for seed in SEEDS:
        subject = subject_of(operation, dtype, seed)
        for case in representative(subject):
            right = expectations(subject, case, backward=False, precise=True)["output"]
            with pytest.raises(Mismatch):
                subject.compare("output", in_dtype(subject, case, COARSER[dtype]), right.expected, right.limit)


@pytest.mark.parametrize(("operation", "dtype"), JUDGED)
def test_zeros_the_mean_and_the_first_input_fail_everywhere(operation: str, dtype: str) -> None:
    subject = subject_of(operation, dtype)
    for case in representative(subject):
        right = expectations(subject, case, backward=False)["output"]
        shape = right.expected.shape
        impostors = [torch.zeros(shape)]
        if right.expected.numel() > 1:  # a single number is its own mean
            impostors.append(right.expected.mean().expand(shape))
        first = next(iter(inputs_of(operation, case).values()))
        if first.shape == shape:
            impostors.append(first)
        for impostor in impostors:
            with pytest.raises(Mismatch):
                subject.compare("output", impostor.to(subject.torch_dtype), right.expected, right.limit)


@pytest.mark.parametrize("operation", BLOCKS)
def test_half_a_gradient_fails(operation: str) -> None:
    """Half of any gradient fails, unless it is zero but for rounding (as that of a key's bias)."""
    subject = subject_of(operation, "float32")
    for case in representative(subject):
        right = expectations(subject, case)
        if len(right) == 1:
            continue  # a function of a mask alone
        result = run(subject, case)
        compare_result(subject, result, right)
        for name, gradient in result.gradients.items():
            if gradient is None or not (right[name].expected.abs() > 4 * right[name].limit).any():
                continue
            result.gradients[name] = gradient / 2
            with pytest.raises(Mismatch):
                compare_result(subject, result, right)
            result.gradients[name] = gradient


@pytest.mark.parametrize("operation", BLOCKS)
def test_limits_do_not_depend_on_what_was_asked_before(operation: str) -> None:
    """Results are kept, and one with gradients serves where none are wanted: tests in any order find the same."""
    subject = subject_of(operation, OPERATIONS[operation].dtypes[-1])
    for case in representative(subject):
        block._expectations.clear()
        alone = expectations(subject, case, backward=False)["output"]
        block._expectations.clear()
        expectations(subject, case)
        kept = expectations(subject, case, backward=False)["output"]
        assert torch.equal(alone.limit, kept.limit)
        assert torch.equal(alone.expected, kept.expected)


def test_a_sparse_result_has_no_element_far_below_what_is_usual_among_those_that_are_reached() -> None:
    """As the gradient of a value of which few cells are read: zeros say nothing of how far the rest may be off."""
    torch.manual_seed(0)
    x = torch.zeros(4_000)
    x[::20] = torch.rand(200) + 0.5
    deviations = spread(lambda: {"x": x * 3}, {"x": x.double() * 3}, runs=2, seed=0)["x"]
    reached = deviations[::20]
    assert reached.min() > 0.3 * reached.mean()
    assert deviations[1] < 0.1 * reached.mean()
