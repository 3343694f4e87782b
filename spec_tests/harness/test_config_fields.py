"""Every field of every configuration, and every setting of a function, is turned in some case of the suite."""

from __future__ import annotations

from typing import Any

import pytest

from detr_conformance.operations import OPERATIONS
from detr_reference.detectors.config import DENOISING
from detr_reference.feed_forward.config import ACTIVATIONS
from detr_reference.queries.config import SELECTIONS
from detr_reference.vision_transformer.config import POOLS
from helpers.config_values import Field, fields_of, given_values, lacking, never_turned

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

# Fields with a few named values; of these each has to occur, of any other one two.
NAMED: dict[str, tuple[Any, ...]] = {
    "activation": ACTIVATIONS,
    "denoising": DENOISING,
    "pool": POOLS,
    "query_selection": SELECTIONS,
}
CONFIGURED = [operation for operation in OPERATIONS if fields_of(operation)]


@pytest.mark.parametrize("operation", CONFIGURED)
def test_every_field_differs_from_its_default_in_some_case(operation: str) -> None:
    given = given_values(operation)
    assert never_turned(operation, given) == []
    assert lacking(operation, given, NAMED) == []


def test_a_field_that_nobody_turns_is_named() -> None:
    given = {field.name: {field.default} for field in fields_of("dino")}
    assert len(never_turned("dino", given)) == len(given)
    given["num_levels"] = {3}
    assert "dino.num_levels: 3" in never_turned("dino", given)
    given["num_levels"] = {3, 4}
    assert not any("num_levels" in each for each in never_turned("dino", given))
    assert "dino.query_selection: no 'static', 'pure'" in lacking("dino", given, NAMED)


def test_what_is_given_is_read_off_the_cases() -> None:
    assert given_values("dino", tests=[])["num_levels"] == set()
    assert Field("eps", 1e-3) in fields_of("refine_boxes")
