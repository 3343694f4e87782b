"""The learning rate over the steps: a linear start, then falling at some epochs.

Source: facebookresearch/detr, main.py (one drop, `lr_drop`); IDEA-Research/DINO, config/DINO (one drop, at epoch 11, 20
or 30 of 12, 24 or 36).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def rate_factor(
    step: int, *, steps_per_epoch: int, drops: Sequence[int], drop_factor: float, warmup_steps: int
) -> float:
    """min(1, (step + 1) / warmup_steps) * drop_factor ** (drops that lie behind)

    Args:
        step: steps so far, 0 for the first one.
        drops: epochs, counted from 0, from whose first step on the rate is lower.
        warmup_steps: 0 for none.
    """
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return warmup * drop_factor ** sum(step >= drop * steps_per_epoch for drop in drops)


def rate_schedule(
    optimizer: Optimizer, *, steps_per_epoch: int, drops: Sequence[int], drop_factor: float, warmup_steps: int
) -> LambdaLR:
    """The learning rate of each group is its own one times `rate_factor`; to be stepped after each step.

    It is MultiStepLR, with LinearLR before it, as one function of the step: no product of rounded factors, and a state
    of plain numbers.
    """

    def factor(step: int) -> float:
        return rate_factor(
            step,
            steps_per_epoch=steps_per_epoch,
            drops=drops,
            drop_factor=drop_factor,
            warmup_steps=warmup_steps,
        )

    return LambdaLR(optimizer, factor)
