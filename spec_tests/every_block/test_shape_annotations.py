"""The shapes in signatures are live in these tests: what contradicts them is refused before any code runs."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.features.valid_ratios import valid_ratios
from detr_reference.queries.reference_points import decoder_reference_points
from helpers.tiny.msda_cases import make_case
from helpers.tiny.msda_module_cases import call, perturbed


def test_axes_of_one_name_agree() -> None:
    """The batch of value and of locations are one axis of the signature."""
    case = make_case([(3, 4)])
    with pytest.raises(jaxtyping.TypeCheckError, match="sampling_locations"):
        ms_deform_attn(*case._replace(value=case.value[:1]))


def test_methods_are_checked_too() -> None:
    """The module's forward refuses a position for one query only."""
    arguments = call()
    with pytest.raises(jaxtyping.TypeCheckError, match="query_pos"):
        perturbed()(**{**arguments, "query_pos": arguments["query_pos"][:, :1]})


def test_other_modules_are_checked_too() -> None:
    """The hook reaches the whole package."""
    with pytest.raises(jaxtyping.TypeCheckError, match="mask_l"):
        valid_ratios(torch.zeros(2, 4, 5))
    with pytest.raises(jaxtyping.TypeCheckError, match="valid_ratios"):
        decoder_reference_points(torch.zeros(2, 5, 2), torch.ones(3, 4, 2))
