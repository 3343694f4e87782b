"""The focal loss against a decimal oracle, special cases, closed-form and numerical gradients, large logits, errors."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detr_reference.losses.focal_loss import sigmoid_focal_loss

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def oracle(logit: float, target: bool, alpha: float, gamma: float) -> tuple[Decimal, Decimal]:
    """Loss of one element and its derivative, with sixty digits."""
    with localcontext() as context:
        context.prec, context.Emin, context.Emax = 60, -(10**9), 10**9
        x = Decimal(logit) if target else -Decimal(logit)
        right = 1 / (1 + (-x).exp())
        wrong = 1 / (1 + x.exp())
        surprise = (1 + (-x).exp()).ln()
        weight = Decimal(alpha) if target else 1 - Decimal(alpha)
        factor = wrong ** Decimal(gamma) if gamma else Decimal(1)
        slope = -weight * factor * (Decimal(gamma) * right * surprise + wrong)
        return weight * factor * surprise, slope if target else -slope


@given(
    elements=st.lists(st.tuples(st.floats(-40, 40), st.booleans()), max_size=6),
    alpha=st.sampled_from((0.0, 0.25, 0.6, 1.0)),
    gamma=st.sampled_from((0.0, 0.5, 1.0, 2.0, 3.5)),
    num_boxes=st.sampled_from((0.25, 1.0, 7.0)),
)
def test_decimal_oracle(elements: list[tuple[float, bool]], alpha: float, gamma: float, num_boxes: float) -> None:
    logits = torch.tensor([logit for logit, _ in elements], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([target for _, target in elements], dtype=torch.float64)
    loss = sigmoid_focal_loss(logits, targets, torch.tensor(num_boxes, dtype=torch.float64), alpha=alpha, gamma=gamma)
    (gradient,) = torch.autograd.grad(loss, logits)
    parts = [oracle(logit, target, alpha, gamma) for logit, target in elements]
    torch.testing.assert_close(loss.item(), float(sum(part for part, _ in parts)) / num_boxes, rtol=1e-13, atol=0)
    slopes = torch.tensor([float(slope) / num_boxes for _, slope in parts], dtype=torch.float64)
    torch.testing.assert_close(gradient, slopes, rtol=1e-12, atol=1e-300)


def drawn(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(shape, dtype=torch.float64), (torch.rand(shape) < 0.3).double()


def test_without_gamma_it_is_weighted_cross_entropy() -> None:
    logits, targets = drawn(2, 5, 3)
    weight = 0.25 * targets + 0.75 * (1 - targets)
    expected = F.binary_cross_entropy_with_logits(logits, targets, weight, reduction="sum") / 4
    loss = sigmoid_focal_loss(logits, targets, torch.tensor(4.0).double(), gamma=0.0)
    torch.testing.assert_close(loss, expected)


def test_symmetry() -> None:
    """Yes to a logit is no to its negative, with the other weight."""
    logits, targets = drawn(4, 3)
    one = torch.ones((), dtype=torch.float64)
    mirrored = sigmoid_focal_loss(-logits, 1 - targets, one, alpha=0.75)
    torch.testing.assert_close(sigmoid_focal_loss(logits, targets, one), mirrored)


def test_one_sum() -> None:
    """Pieces may be summed up, in any shape: no mean over anything."""
    logits, targets = drawn(3, 4, 5)
    count = torch.tensor(6.0).double()
    whole = sigmoid_focal_loss(logits, targets, count)
    parts = [sigmoid_focal_loss(x, y, count) for x, y in zip(logits.unbind(1), targets.unbind(1), strict=True)]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)
    torch.testing.assert_close(sigmoid_focal_loss(logits.flatten(), targets.flatten(), count), whole)


def test_gradients() -> None:
    logits, targets = drawn(3, 4)
    count = torch.tensor(2.0).double()
    for gamma in (0.0, 0.5, 2.0):
        assert torch.autograd.gradcheck(
            lambda x, gamma=gamma: sigmoid_focal_loss(x, targets, count, gamma=gamma), logits.requires_grad_()
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_large_logits(dtype: torch.dtype, gamma: float) -> None:
    """The loss of a wrong answer is its logit, of a right one 0; the derivatives +-alpha and 0."""
    logits = torch.tensor([[1e4, 1e4], [-1e4, -1e4]], dtype=dtype, requires_grad=True)
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=dtype)
    loss = sigmoid_focal_loss(logits, targets, torch.tensor(1.0, dtype=dtype), gamma=gamma)
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(1e4, dtype=dtype))
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.tensor([[0.0, 0.75], [-0.25, 0.0]], dtype=dtype))


def test_no_elements() -> None:
    logits = torch.zeros(2, 0, 3, requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.zeros(2, 0, 3), torch.tensor(1.0))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_the_rounded_float32(dtype: torch.dtype) -> None:
    logits, targets = (tensor.to(dtype) for tensor in drawn(2, 50, 8))
    count = torch.tensor(40.0, dtype=dtype)
    loss = sigmoid_focal_loss(logits, targets, count)
    assert loss.dtype == dtype
    assert torch.equal(loss, sigmoid_focal_loss(logits.float(), targets.float(), count.float()).to(dtype))


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors() -> None:
    logits, targets, count = torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor(1.0)
    with pytest.raises(ValueError, match=r"logits \(2, 3\) and targets \(2, 1\) must have the same shape"):
        sigmoid_focal_loss(logits, targets[:, :1], count)
    with pytest.raises(ValueError, match=r"num_boxes must be a scalar, got \(1,\)"):
        sigmoid_focal_loss(logits, targets, count[None])
    with pytest.raises(ValueError, match=r"alpha must lie between 0 and 1, got -1"):
        sigmoid_focal_loss(logits, targets, count, alpha=-1)
    with pytest.raises(ValueError, match=r"gamma must not be negative, got -2"):
        sigmoid_focal_loss(logits, targets, count, gamma=-2)
    with pytest.raises(ValueError, match=r"targets must be 0 or 1, got 0\.5 and 5 more"):
        sigmoid_focal_loss(logits, targets + 0.5, count)
    with pytest.raises(TypeError, match=r"logits must be floating, got torch.int64"):
        sigmoid_focal_loss(logits.long(), targets, count)
