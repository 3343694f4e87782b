"""What a module returns while training: results of which each is one of a few, at known shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detr_conformance.harness.mismatch import check_form, expect

SIGMAS = 6.0


@dataclass(frozen=True)
class Outcome:
    """One of the results that dropout may leave.

    Attributes:
        name: which entries were dropped, in words.
        expected, limit: float64, of the output's shape.
        share: the probability of this result.
    """

    name: str
    expected: Tensor
    limit: Tensor
    share: float


def is_one_of(got: Tensor, outcomes: Sequence[Outcome], token_wise: bool = False) -> list[Tensor]:
    """Every element (or token) is one of the outcomes, each with its share.

    Returns:
        Which elements (or tokens) each outcome has.
    """
    matches = []
    for outcome in outcomes:
        check_form("output", got, outcome.expected)
        near = (got - outcome.expected).abs() <= outcome.limit
        matches.append(near.all(-1) if token_wise else near)
    unexplained = ~torch.stack(matches).any(0)
    names = ", ".join(outcome.name for outcome in outcomes)
    what = "tokens" if token_wise else "elements"
    expect(
        not unexplained.any(),
        f"{int(unexplained.sum())} of {unexplained.numel()} {what} are none of: {names}",
        where=f"output{unexplained.nonzero()[0].tolist()}" if unexplained.any() else "output",
        expected=names,
        got="another value",
    )
    for outcome, match in zip(outcomes, matches, strict=True):
        share = match.double().mean().item()
        slack = SIGMAS * math.sqrt(outcome.share * (1 - outcome.share) / match.numel()) + 1e-9
        expect(
            abs(share - outcome.share) <= slack,
            f"{share:.3f} of the {what} are {outcome.name}, expected {outcome.share:.3f} within {slack:.3f}",
            where="output",
            expected=f"{outcome.share:.3f}",
            got=f"{share:.3f}",
            limit=f"{slack:.3f}",
        )
    return matches
