"""What a user gets wrong is answered with the argument's name and the shapes at hand."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from detr_reference.deformable_attention.config import MSDeformAttnConfig
from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.deformable_attention.module import build
from detr_reference.features.valid_ratios import valid_ratios
from detr_reference.queries.reference_points import decoder_reference_points, encoder_reference_points
from helpers.tiny.msda_cases import make_case
from helpers.tiny.msda_module_cases import CONFIG, call, perturbed

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

CASE = make_case([(3, 4), (2, 5)])  # value (2, 22, 2, 3), locations (2, 5, 2, 2, 3, 2)


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("value", CASE.value[..., 0], ["value", "(2, 22, 2)"]),
        ("value", CASE.value[:, :21], ["(2, 21, 2, 3)", "21 cells", "[[3, 4], [2, 5]]", "22"]),
        ("value", CASE.value[:1], ["(2, 5, 2, 2, 3, 2)", "(1, 22, 2, 3)", "batch (1)"]),
        ("value", CASE.value[:, :, :1], ["(2, 5, 2, 2, 3, 2)", "(2, 22, 1, 3)", "heads (1)"]),
        ("spatial_shapes", torch.tensor([3, 4, 2, 5]), ["spatial_shapes", "(H, W)", "(4,)"]),
        ("spatial_shapes", torch.tensor([(3, 4, 1), (2, 5, 1)]), ["spatial_shapes", "(2, 3)"]),
        ("spatial_shapes", torch.tensor([(3, 4)]), ["(2, 5, 2, 2, 3, 2)", "2 levels", "spatial_shapes has 1"]),
        ("spatial_shapes", torch.tensor([(-3, -4), (2, 5)]), ["spatial_shapes", "[-3, -4]", "negative"]),
        ("spatial_shapes", torch.tensor([(2, 5), (3, 4)]), ["level_start_index [0, 12]", "[0, 10]"]),
        ("level_start_index", torch.tensor([0]), ["level_start_index", "(2,)", "(1,)"]),
        ("level_start_index", torch.tensor([0, 10]), ["level_start_index [0, 10]", "[0, 12]"]),
        ("sampling_locations", CASE.sampling_locations[..., :1], ["sampling_locations", "(2, 5, 2, 2, 3, 1)"]),
        ("sampling_locations", CASE.sampling_locations[0], ["sampling_locations", "(5, 2, 2, 3, 2)"]),
        ("attention_weights", CASE.attention_weights[:, :4], ["attention_weights", "(2, 4, 2, 2, 3)"]),
        ("attention_weights", CASE.attention_weights.flatten(3), ["(2, 5, 2, 6)", "(2, 5, 2, 2, 3)"]),
    ],
)
def test_shapes_that_disagree(name: str, wrong: Tensor, words: list[str]) -> None:
    """ValueError names the argument and quotes what it has and what it should have."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ms_deform_attn(*CASE._replace(**{name: wrong}))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("value", torch.int64),
        ("value", torch.complex64),
        ("sampling_locations", torch.int32),
        ("attention_weights", torch.bool),
        ("spatial_shapes", torch.float32),
        ("level_start_index", torch.bool),
    ],
)
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    """TypeError names the argument, what it is, and what it may be."""
    with pytest.raises(TypeError, match=rf"^{name} must be one of .*, got {str(dtype).split('.')[1]}$"):
        ms_deform_attn(*CASE._replace(**{name: getattr(CASE, name).to(dtype)}))


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("query", torch.zeros(2, 5, 11), ["query", "(batch, length, 12)", "(2, 5, 11)"]),
        ("value", torch.zeros(2, 126, 13), ["value", "(batch, length, 12)", "(2, 126, 13)"]),
        ("value", torch.zeros(126, 12), ["value", "(126, 12)"]),
        ("value", torch.zeros(3, 126, 12), ["value (3, 126, 12)", "query (2, 5, 12)", "batch"]),
        ("value", torch.zeros(2, 125, 12), ["key_padding_mask (2, 126)", "(2, 125)"]),
        ("query_pos", torch.zeros(5, 12), ["query_pos (5, 12)", "(2, 5, 12)"]),
        ("identity", torch.zeros(2, 1, 12), ["identity (2, 1, 12)", "(2, 5, 12)"]),
        ("key_padding_mask", torch.zeros(2, 5, dtype=torch.bool), ["key_padding_mask (2, 5)", "(2, 126)"]),
        ("key_padding_mask", torch.zeros(1, 126, dtype=torch.bool), ["key_padding_mask (1, 126)", "(2, 126)"]),
        ("reference_points", torch.zeros(2, 5, 2, 3), ["reference_points", "2 or 4", "(2, 5, 2, 3)"]),
        ("reference_points", torch.zeros(2, 5, 1, 2), ["reference_points", "(2, 5, 2)", "(2, 5, 1, 2)"]),
        ("reference_points", torch.zeros(2, 5, 2), ["reference_points", "(2, 5, 2)"]),
        ("spatial_shapes", torch.tensor([(2, 63)]), ["spatial_shapes", "num_levels", "(1, 2)"]),
        ("spatial_shapes", torch.tensor([(4, 6), (2, 50)]), ["value (2, 126, 12)", "[2, 50]", "124"]),
        ("level_start_index", torch.tensor([0, 25]), ["level_start_index [0, 25]", "[0, 24]"]),
    ],
)
def test_arguments_of_the_module(name: str, wrong: Tensor, words: list[str]) -> None:
    """The module checks what its core cannot know, whatever the core."""
    module = perturbed(core=lambda *_: pytest.fail("the core was called"))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        module(**{**call(), name: wrong})
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_mask_that_is_not_boolean() -> None:
    """A mask of numbers has no agreed polarity."""
    with pytest.raises(TypeError, match=r"key_padding_mask must be bool \(True is padding\), got torch.int64"):
        perturbed()(**{**call(), "key_padding_mask": torch.zeros(2, 126, dtype=torch.int64)})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"embed_dim": 256, "num_heads": 6}, "num_heads must divide embed_dim, but 256 / 6 leaves 4 channels over"),
        ({"num_levels": 0}, "num_levels must be at least 1, got 0"),
        ({"num_points": -2}, "num_points must be at least 1, got -2"),
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"dropout": 1.5}, "dropout must lie between 0 and 1, got 1.5"),
    ],
)
def test_configurations(sizes: dict[str, float], message: str) -> None:
    """A configuration that cannot be built is refused when it is written down, with its numbers."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MSDeformAttnConfig(**sizes)


def test_build_is_strict() -> None:
    """A missing, unknown or misshapen parameter is named; an empty dictionary lacks them all."""
    state = perturbed().state_dict()
    with pytest.raises(RuntimeError, match=r"Missing key.*value_proj\.bias"):
        build(CONFIG, {name: tensor for name, tensor in state.items() if name != "value_proj.bias"})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*extra"):
        build(CONFIG, {**state, "extra": torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r"size mismatch for value_proj\.bias"):
        build(CONFIG, {**state, "value_proj.bias": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="Missing key"):
        build(CONFIG, {})


@pytest.mark.parametrize("side", ["all", "row", "column"])
def test_a_level_that_is_all_padding(side: str) -> None:
    """A ratio of 0 would make NaN references; the message points at the polarity."""
    mask = torch.zeros(3, 4, 6, dtype=torch.bool)
    mask[1][{"all": (...,), "row": (0,), "column": (slice(None), 0)}[side]] = True
    with pytest.raises(ValueError, match=r"mask_l \(3, 4, 6\).*image 1.*True must mean padding"):
        valid_ratios(mask)


def test_reference_point_arguments() -> None:
    """Masks, ratios and references with the wrong axes are quoted."""
    ratios = torch.ones(2, 3, 2)
    with pytest.raises(ValueError, match=r"mask_l must be \(batch, height, width\), got \(4, 6\)"):
        valid_ratios(torch.zeros(4, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask_l \(2, 0, 6\)"):
        valid_ratios(torch.zeros(2, 0, 6, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"mask_l must be bool \(True is padding\), got torch.float32"):
        valid_ratios(torch.zeros(2, 4, 6))
    with pytest.raises(ValueError, match=r"spatial_shapes \(2, 2\) and valid_ratios \(2, 3, 2\)"):
        encoder_reference_points(torch.tensor([(3, 4), (2, 5)]), ratios)
    with pytest.raises(ValueError, match=r"valid_ratios must be \(batch, level, 2\).*got \(2, 3, 4\)"):
        encoder_reference_points(torch.tensor([(3, 4)] * 3), torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match=r"valid_ratios must be \(batch, level, 2\).*got \(3, 2\)"):
        decoder_reference_points(torch.ones(2, 5, 2), ratios[0])
    with pytest.raises(ValueError, match=r"reference_points.*got \(2, 5, 3\)"):
        decoder_reference_points(torch.ones(2, 5, 3), ratios)
    with pytest.raises(ValueError, match=r"reference_points \(3, 5, 2\) and valid_ratios \(2, 3, 2\)"):
        decoder_reference_points(torch.ones(3, 5, 2), ratios)
