"""What a module returns while training: results of which each is one of a few, at known shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detr_conformance.harness.block import forward
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import check_form, expect
from detr_conformance.harness.subject import Subject

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


def while_training(subject: Subject, case: Case, made: Callable[..., Any]) -> Tensor:
    """The output of the module in training mode, with the seed of the run."""
    made.train()  # type: ignore[attr-defined]
    with _seeded(subject.settings.seed):
        return forward(subject, case, made).detach().cpu().double()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)


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
