"""Second derivatives: a product with the Hessian, by differences of the reference's gradients in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.harness.block import calling, differentiable, gradients_of_reference, make
from detr_conformance.harness.block_case import inputs_of
from detr_conformance.harness.case import Case, lay_out
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import Raised, expect
from detr_conformance.harness.subject import Subject, explained

STEP = 1e-6
SHARE, OF_FIRST = 1e-2, 1e-4  # of the second derivative's norm, and of the gradient's


def right_or_refused(subject: Subject, case: Case) -> None:
    """d/dx <gradient(x), v> is what it is, or the target raises; a gradient that is missing counts as zero."""
    names = [
        name for name, t in inputs_of(subject.operation, case).items() if differentiable(subject.operation, name, t)
    ]
    fill = Filler("float64", subject.settings.seed, "along", case.note)
    along = {name: fill.normal(*case[name].shape) for name in names}
    first, right = _by_differences(subject.operation, case, along)
    try:
        got = _of_the_target(subject, case, {name: along[name] for name in right})
    except Raised:
        return
    for name, expected in right.items():
        found = got[name].detach().to("cpu", torch.float64)
        error = float((found - expected).norm())
        limit = SHARE * float(expected.norm()) + OF_FIRST * float(first[name].norm())
        expect(
            error <= limit,
            f"the second derivative by {name} is off by {error:.3g}, its limit is {limit:.3g}",
            where=f"second derivative by {name}",
            expected=f"of norm {float(expected.norm()):.4g}, or an exception",
            got=f"of norm {float(found.norm()):.4g}",
        )


def _by_differences(
    operation: str, case: Case, along: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The gradients, and their derivative along the direction."""

    def at(step: float) -> dict[str, Tensor]:
        moved = {name: case[name].double() + step * direction for name, direction in along.items()}
        return gradients_of_reference(operation, case.having(**moved))

    first, ahead, behind = at(0.0), at(STEP), at(-STEP)
    known = [name for name in along if name in first]
    return first, {name: (ahead[name] - behind[name]) / (2 * STEP) for name in known}


def _of_the_target(subject: Subject, case: Case, along: dict[str, Tensor]) -> dict[str, Tensor]:
    bound, inputs = calling(subject, make(subject, case), case)
    arguments = bound.arguments(inputs)
    leaves = {name: arguments[name].requires_grad_() for name in along}
    output = bound.call(arguments)
    # An incoming gradient that asks for one itself: otherwise `once_differentiable` has nothing to refuse.
    grad_output = lay_out(case["grad_output"].to(subject.device), case.layout).requires_grad_()
    gradients = bound.pull_back(output, grad_output, leaves, create_graph=True)
    product = sum((subject.gradient(name, gradients) * along[name].to(leaves[name])).sum() for name in along)
    assert isinstance(product, Tensor)
    with explained("the backward pass of the gradients"):
        product.backward()  # of everything: autograd.grad would leave out the nodes that refuse
    return {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}
