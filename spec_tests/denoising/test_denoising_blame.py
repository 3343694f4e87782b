"""A wrong number of denoising groups is told by the clause about it, and by no other."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from torch import Tensor

from detr_conformance import Target
from detr_conformance.running.trial import trials
from detr_reference import contrastive_denoising


def counted_otherwise(
    *arguments: Tensor, number: int, denoising_number: int = 100, **settings: Any
) -> dict[str, Tensor]:
    """`number` times as many groups: DINO's training counts positives and negatives, others count pairs."""
    return contrastive_denoising(*arguments, denoising_number=denoising_number * number, **settings)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("number", [2, 3])
def test_other_numbers_of_groups(number: int) -> None:
    counted = partial(counted_otherwise, number=number)
    target = Target(name="counted otherwise", provides={"contrastive_denoising": counted}, dtypes=("float32",))
    failed = {clause for test, _, failure in trials(target) if failure is not None for clause in test.clauses}
    assert failed == {"CDN-2"}
