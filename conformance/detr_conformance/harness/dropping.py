"""What a module returns while training: results of which each is one of a few, at known shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detr_conformance.harness.mismatch import check_form, expect, expect_share


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
        expect_share(f"{what} that are {outcome.name}", match, outcome.share)
    return matches


def each_by_itself(matches: Sequence[Tensor], outcomes: Sequence[Outcome]) -> None:
    """The tokens of an image (the second axis of what `is_one_of` returned) do not all meet the same fate."""
    tokens = matches[0].shape[1]
    alike = torch.stack([match.all(1) for match in matches]).any(0)
    chance = sum(outcome.share**tokens for outcome in outcomes)
    expect_share(f"images whose {tokens} tokens are all dropped alike", alike, chance)
