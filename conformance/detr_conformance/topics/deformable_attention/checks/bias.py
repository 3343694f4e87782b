"""Limits of the mean and of the spread of many errors, beside that of each: spec chapter 1, "Bias".

A result that is too small by a few roundings everywhere stays within the limit of every element, and nobody's rounding
is wrong to one side only. How far chance takes the mean of so many errors follows from their limits alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.mismatch import SIGMAS, Mismatch
from detr_conformance.harness.subject import Subject

SHARED = 4  # groups that one rounding may reach: the four corners of a sample


def unbiased(subject: Subject, name: str, got: Tensor, right: Expectation, together: int) -> None:
    """The errors are not to one side, and not spread to their limits.

    Args:
        together: neighbours along the last axis whose errors may have the same cause, as the channels of a head.
    """
    shape = (-1, together)
    expected, limit = right.expected.reshape(shape), right.limit.reshape(shape)
    error = got.detach().cpu().double().reshape(shape) - expected
    chance = SIGMAS * SHARED**0.5
    size = expected.square().sum()
    slope = (error * expected).sum() / size
    reach = chance * (limit * expected.abs()).sum(-1).square().sum().sqrt() / size
    _judge(subject, f"mean error of {name}, as a share of it", slope, reach)
    share = (error / limit).square()
    _judge(subject, f"mean square of error / limit of {name}", share.mean(), 1 / 3 + chance / (2 * len(share) ** 0.5))


def within(got: Tensor, right: Expectation) -> bool:
    """Whether each error by itself is within its limit."""
    return bool(((got.detach().cpu().double() - right.expected).abs() <= right.limit).all())


def _judge(subject: Subject, what: str, found: Tensor, limit: Tensor | float) -> None:
    ratio = float(found.abs() / limit)
    if not ratio <= 1:
        raise Mismatch(
            f"{what}: {float(found):.3g}, by chance at most {float(limit):.3g}",
            where=what,
            expected="0",
            got=f"{float(found):.3g}",
            limit=f"{float(limit):.3g}",
            ratio=ratio if torch.isfinite(torch.tensor(ratio)) else None,
        )
    subject.worst_ratio = max(ratio, subject.worst_ratio or 0.0)
