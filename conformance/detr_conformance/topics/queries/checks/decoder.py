"""What tests of decoders compare: some of several outputs, and which layer's loss reaches which head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from detr_conformance.harness.block import (
    PRECISE,
    expectations,
    forward,
    make,
    outputs,
    parameters_by_name,
    parts,
)
from detr_conformance.harness.block_case import inputs_of, reference_callable
from detr_conformance.harness.case import TORCH_DTYPES, Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.random_rounding import spread
from detr_conformance.harness.subject import Subject

REACHED, NOTHING = "#", "."


def parts_agree(subject: Subject, case: Case, *names: str, precise: bool = False) -> None:
    """These of the outputs lie within their limits."""
    right = expectations(subject, case, backward=False, precise=precise)["output"]
    expected, limit = parts(case, right.expected), parts(case, right.limit)
    got = parts(case, forward(subject, case))
    for name in names:
        subject.compare(name, got[name], expected[name], limit[name])


def agrees_without_rounded_inputs(subject: Subject, case: Case, name: str) -> None:
    """An output lies within limits that count the roundings of intermediates alone.

    The usual limits also allow for a rounding of the inputs, and so hide that of a box in the dtype of the tokens.
    """
    dtype = TORCH_DTYPES[subject.dtype]
    runs, deviations = PRECISE

    def result(made: Callable[..., Any], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            return {name: made(**inputs)[name]}

    given = inputs_of(subject.operation, case)
    wide = {n: t.double() if t.is_floating_point() else t for n, t in given.items()}
    right = result(reference_callable(subject.operation, case, torch.float64), wide)
    made = reference_callable(subject.operation, case, dtype)
    rms = spread(lambda: result(made, given), right, runs=runs, seed=0)[name]
    limit = deviations * rms + torch.finfo(dtype).eps * right[name].abs()
    subject.compare(name, parts(case, forward(subject, case))[name], right[name], limit)


def reaches(subject: Subject, case: Case, output: str, heads: str, expected: Sequence[str]) -> None:
    """Row i of `expected` says which of the heads have a gradient of layer i of the output; others have exactly none.

    Args:
        heads: the beginning of their parameters' names, up to the number.
        expected: a row of # and . for each layer.
    """
    made = make(subject, case)
    found = outputs(subject, case, made)[output]
    own = parameters_by_name(subject.operation, made, case)
    numbers = len(expected[0])
    parameters = [_flat(own, f"{heads}.{number}.") for number in range(numbers)]
    for index, (layer, row) in enumerate(zip(found, expected, strict=True)):
        got = "".join(REACHED if _has_gradient(layer, each) else NOTHING for each in parameters)
        expect(
            got == row,
            f"{output}[{index}] reaches {_named(heads, got)}, expected {_named(heads, row)}",
            where=f"{output}[{index}]",
            expected=row,
            got=got,
        )


def no_gradient(subject: Subject, case: Case, name: str) -> None:
    """No output has a gradient with respect to this input, or one of zeros."""
    made = make(subject, case)
    leaf = case[name].clone().to(subject.device).requires_grad_()
    for output, tensor in outputs(subject, case.having(**{name: leaf}), made).items():
        expect(
            not _has_gradient(tensor, [leaf]),
            f"{output} has a gradient with respect to {name}",
            where=f"grad_{name}",
            expected="none",
            got="numbers other than 0",
        )


def _flat(own: dict[str, tuple[Tensor, ...]], start: str) -> list[Tensor]:
    return [part for name, several in own.items() if name.startswith(start) for part in several]


def _has_gradient(output: Tensor, leaves: list[Tensor]) -> bool:
    if not output.requires_grad:
        return False
    weights = Filler("float32", output.shape).uniform(0.5, 1.5, *output.shape).to(output)
    weights[..., ::2] *= -1  # the sum over the channels of a norm is constant
    gradients = torch.autograd.grad(output, leaves, weights, retain_graph=True, allow_unused=True)
    return any(gradient is not None and bool(gradient.count_nonzero()) for gradient in gradients)


def _named(heads: str, row: str) -> str:
    reached = ", ".join(f"{heads}.{number}" for number, mark in enumerate(row) if mark == REACHED)
    return reached or f"no {heads}"
