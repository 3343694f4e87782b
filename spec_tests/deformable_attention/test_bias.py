"""Mean and spread of errors: no false alarm among right implementations and pretended errors, and what is seen."""

from __future__ import annotations

import math

import pytest
import torch

from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.mismatch import Mismatch
from detr_conformance.harness.subject import Settings, Subject
from detr_conformance.running.mutants import TWINS
from detr_conformance.topics.deformable_attention import test_ms_deform_attn_bias as suite
from detr_conformance.topics.deformable_attention.cases.core import structure_of
from detr_conformance.topics.deformable_attention.checks.bias import unbiased
from detr_conformance.topics.deformable_attention.mutants.kernel import Call, Geometry, Kernel, PerSample
from detr_conformance.topics.deformable_attention.test_ms_deform_attn_bias import many_elements
from detr_reference import ms_deform_attn

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

PROPERTY = suite.test_errors_have_no_direction.suite_test.property  # type: ignore[attr-defined]
GROUPS, TOGETHER = 2_000, 8


def judged(implementation: object, seed: int, dtype: str = "float32") -> float:
    """The largest statistic over its limit."""
    subject = Subject("ms_deform_attn", implementation, dtype, settings=Settings(seed=seed))  # type: ignore[arg-type]
    return max(subject.judged(PROPERTY, case) or 0.0 for case in many_elements(subject))


def ratio_of(error: torch.Tensor) -> float:
    """Of errors with a limit of one, of results between a half and three halves."""
    subject = Subject("ms_deform_attn", ms_deform_attn)
    expected = 0.5 + torch.rand(error.shape, dtype=torch.float64)
    unbiased(subject, "pretended", expected + error, Expectation(expected, torch.ones_like(error)), TOGETHER)
    return subject.worst_ratio or 0.0


@pytest.mark.parametrize("name", ["sequential-sum", "grid-sample", "sorted-scatter"])
def test_right_implementations_are_far_from_the_limits_at_every_seed(name: str) -> None:
    """A limit of six deviations of errors at their limits; errors of rounding are smaller."""
    for seed in range(1, 5):
        assert judged(TWINS[name].build(), seed) < 0.2, seed


@pytest.mark.parametrize("shared", [False, True])
def test_errors_as_large_as_allowed_pass_unless_they_have_a_direction(shared: bool) -> None:
    """Evenly spread up to the limit, also if those of a group are one: the worst that the derivation allows."""
    torch.manual_seed(0)
    for _ in range(400):
        error = 2 * torch.rand(GROUPS, 1 if shared else TOGETHER, dtype=torch.float64) - 1
        assert ratio_of(error.expand(GROUPS, TOGETHER)) < 0.95
    with pytest.raises(Mismatch, match="mean error of pretended"):
        ratio_of(error.abs().expand(GROUPS, TOGETHER))


def test_errors_at_their_limits_are_too_many() -> None:
    torch.manual_seed(0)
    signs = 1.0 - 2.0 * torch.randint(2, (4 * GROUPS, TOGETHER)).double()
    with pytest.raises(Mismatch, match="mean square"):
        ratio_of(signs)


class SmallValueGradient(Kernel):
    """Multiplies the gradient of the value by 1 - 2^-power."""

    power = 21

    def grad_value(self, grad: torch.Tensor, geometry: Geometry, weights: PerSample, call: Call) -> torch.Tensor:
        return super().grad_value(grad, geometry, weights, call) * (1 - 2.0**-self.power)


def test_a_bias_of_a_few_roundings_is_seen() -> None:
    with pytest.raises(Mismatch, match="mean error of grad_value"):
        judged(SmallValueGradient(), 0)


def test_there_are_elements_enough() -> None:
    for case in many_elements(Subject("ms_deform_attn", ms_deform_attn)):
        s = structure_of(case)
        for groups in (s.batch * s.queries * s.heads, s.batch * s.cells * s.heads, math.prod(s.samples)):
            assert groups > 2_000
