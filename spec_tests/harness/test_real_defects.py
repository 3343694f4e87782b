"""Defects of public implementations that the chapters tell of: each is rejected by the clause that does."""

from __future__ import annotations

import pytest

from detr_conformance.running.trial import rejection
from detr_conformance.target import Target
from detr_conformance.targets.transformers.transformer import provides_pre_norm, variants
from detr_conformance.targets.transformers.transformer_families import PRE_NORM_TOO

pytest.importorskip("transformers")


@pytest.mark.parametrize("family", PRE_NORM_TOO)
def test_pre_norm_layers_that_add_to_the_normalised_stream(family: str) -> None:
    target = Target(family, provides_pre_norm(family), variants=variants(family, pre_norm=True))
    found = rejection(target, "TL-3")
    assert found is not None
    assert found[0].name == "test_pre_norm"
