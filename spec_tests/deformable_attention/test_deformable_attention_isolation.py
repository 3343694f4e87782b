"""Who may influence whom: levels, heads, channels, images and queries do not mix in the sampling core."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detr_reference.deformable_attention.core import ms_deform_attn
from helpers.tiny.msda_cases import Case, make_case

CASE = make_case([(5, 4), (2, 7), (50, 3)], batch=3, queries=6, heads=2, channels=3, points=2, reach=-0.5)


def changed(case: Case) -> Tensor:
    """(batch, query, head, channel), True where the output is not bitwise that of CASE."""
    return (ms_deform_attn(*case) != ms_deform_attn(*CASE)).unflatten(-1, (2, 3))


def disturbed(name: str, index: tuple) -> Case:
    tensor = getattr(CASE, name).clone()
    tensor[index] += 0.37 if name != "sampling_locations" else -0.21
    return CASE._replace(**{name: tensor})


def only(*index: int | slice) -> Tensor:
    mask = torch.zeros(3, 6, 2, 3, dtype=torch.bool)
    mask[index] = True
    return mask


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_an_image_reaches_its_own_output_alone(batch: int) -> None:
    """Changing everything about one image changes all of its outputs and no other's."""
    for name in ("value", "sampling_locations", "attention_weights"):
        assert torch.equal(changed(disturbed(name, (batch,))), only(batch)), name


@pytest.mark.parametrize("head", [0, 1])
def test_a_head_reaches_its_own_channels_alone(head: int) -> None:
    """The head axis is the third of value, locations and weights alike."""
    for name in ("value", "sampling_locations", "attention_weights"):
        assert torch.equal(
            changed(disturbed(name, (slice(None), slice(None), head))), only(slice(None), slice(None), head)
        ), name


def test_a_query_reaches_its_own_row_alone() -> None:
    """Locations and weights of a query decide about that query."""
    for name in ("sampling_locations", "attention_weights"):
        assert torch.equal(changed(disturbed(name, (slice(None), 4))), only(slice(None), 4)), name


def test_a_channel_stays_in_its_place() -> None:
    """Sampling never mixes channels."""
    case = disturbed("value", (slice(None), slice(None), slice(None), 1))
    assert torch.equal(changed(case), only(slice(None), slice(None), slice(None), 1))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_reads_its_own_cells_alone(level: int) -> None:
    """With weights on one level only, its cells are all that matters, border band included."""
    case = make_case(CASE.shapes(), queries=40, reach=1.0, seed=2)
    weights = torch.zeros_like(case.attention_weights)
    weights[:, :, :, level] = case.attention_weights[:, :, :, level]
    case = case._replace(attention_weights=weights)
    starts = [*case.level_start_index.tolist(), case.value.shape[1]]
    inside = torch.zeros(case.value.shape[1], dtype=torch.bool)
    inside[starts[level] : starts[level + 1]] = True
    others = torch.where(inside[:, None, None], case.value, torch.randn_like(case.value))
    output = ms_deform_attn(*case)
    assert torch.equal(output, ms_deform_attn(*case._replace(value=others)))
    own = torch.where(inside[:, None, None], torch.randn_like(case.value), case.value)
    assert not torch.equal(output, ms_deform_attn(*case._replace(value=own)))


def test_rows_do_not_wrap() -> None:
    """A sample beyond the right border does not read the next row, nor the next level below the last row."""
    case = make_case([(4, 5), (3, 3)], batch=1, queries=2, heads=1, channels=1, points=1)
    locations = torch.tensor([(5.49 / 5, 1.5 / 4), (2.5 / 5, 4.49 / 4)], dtype=torch.float64)
    locations = locations[None, :, None, None, None].expand(1, 2, 1, 2, 1, 2)
    weights = torch.tensor([1.0, 0.0]).double()[:, None].expand(1, 2, 1, 2, 1)
    output = ms_deform_attn(
        *case._replace(sampling_locations=locations, attention_weights=weights, value=case.value * 0 + 1)
    )
    torch.testing.assert_close(output.flatten(), torch.full((2,), 0.01, dtype=torch.float64))
