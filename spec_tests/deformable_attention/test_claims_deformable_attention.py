"""Claims 8 to 11 and 13 of spec chapter 10: what deformable attention reads, and in which units."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from detr_reference.attention.config import MultiheadAttentionConfig
from detr_reference.attention.multihead_attention import MultiheadAttention
from detr_reference.deformable_attention.core import level_starts
from detr_reference.deformable_attention.module import MultiScaleDeformableAttention
from helpers.tiny.claims_models import (
    EMBED,
    HEADS,
    POINTS,
    SHAPES,
    Memory,
    Recorder,
    deformable_attention,
    memory,
    perturbed,
)

QUERIES = 5


def content() -> Tensor:
    return torch.randn(2, QUERIES, EMBED, dtype=torch.float64)


def references(coordinates: int, levels: int = 2) -> Tensor:
    return torch.rand(2, QUERIES, 1, coordinates, dtype=torch.float64).expand(-1, -1, levels, -1)


def largest(difference: Tensor) -> float:
    return difference.abs().max().item()


def test_claim_08_the_weights_are_still_those_of_an_attention() -> None:
    """A softmax of the query: inside a map of ones every head gives 1, where a convolution gives the kernel's sum."""
    module, maps = perturbed(deformable_attention()), memory()
    with torch.no_grad():
        for projection in (module.value_proj, module.output_proj):
            projection.weight.copy_(torch.eye(EMBED))
            projection.bias.zero_()
    query, small_box = content(), torch.tensor([0.5, 0.5, 0.2, 0.2], dtype=torch.float64)
    arguments = {"identity": torch.zeros_like(query), "reference_points": small_box.expand(2, QUERIES, 2, 4)}
    ones = maps._replace(value=torch.ones_like(maps.value))
    torch.testing.assert_close(module(query, **arguments, **ones._asdict()), torch.ones_like(query))
    convolution = perturbed(nn.Conv2d(EMBED, EMBED, 3, bias=False))
    assert largest(convolution(torch.ones(1, EMBED, 4, 6).double()) - 1) > 0.1


def test_claim_09_where_to_look_does_not_depend_on_what_is_there() -> None:
    """Other maps, same locations and weights; and the output is affine in the maps."""
    recorder = Recorder()
    module, query, points = perturbed(deformable_attention(recorder=recorder)), content(), references(2)
    one, other = memory(), memory()
    mixed = one._replace(value=3 * one.value - 2 * other.value)
    outputs = [module(query, reference_points=points, **maps._asdict()) for maps in (one, other, mixed)]
    for recorded in (recorder.locations, recorder.weights):
        assert all(torch.equal(each, recorded[0]) for each in recorded)
    torch.testing.assert_close(outputs[2], 3 * outputs[0] - 2 * outputs[1])


def test_claim_09_attention_does_look_at_keys() -> None:
    """Ordinary attention on the same maps is not affine in them."""
    module = perturbed(MultiheadAttention(MultiheadAttentionConfig(EMBED, HEADS)))
    query, one, other = content(), memory().value, memory().value
    outputs = [module(query, maps) for maps in (one, other, 3 * one - 2 * other)]
    assert largest(outputs[2] - 3 * outputs[0] + 2 * outputs[1]) > 0.1


def test_claim_09_in_the_encoder_a_cell_looks_at_itself() -> None:
    """There the query is the map, so that the offsets depend on the content of the asking cell, and of no other."""
    recorder = Recorder()
    module, maps = perturbed(deformable_attention(recorder=recorder)), memory()
    changed = maps.value.clone()
    changed[:, 3] += 1
    points = torch.rand(2, maps.value.shape[1], 2, 2, dtype=torch.float64)
    for value in (maps.value, changed):
        module(value, reference_points=points, **maps._replace(value=value)._asdict())
    moved = (recorder.locations[1] - recorder.locations[0]).abs().amax((0, 2, 3, 4, 5)) > 0
    assert moved.nonzero().tolist() == [[3]]


def many_points_for_levels(coordinates: int, identical: bool) -> float:
    """How far L levels with P points differ from one level with L * P points and the same parameters."""
    levels, points = 3, 2
    many_levels = perturbed(deformable_attention(levels=levels, points=points))
    one_level = deformable_attention(levels=1, points=levels * points)
    one_level.load_state_dict(many_levels.state_dict())  # (head, level, point) flattens to the same order
    query, where = content(), references(coordinates, levels)
    first, other = memory([(4, 6)]), memory([(4, 6)])
    last = first if identical else other
    shapes = torch.tensor([(4, 6)] * levels)
    maps = Memory(torch.cat((first.value, first.value, last.value), dim=1), shapes, level_starts(shapes))
    output = many_levels(query, reference_points=where, **maps._asdict())
    return largest(output - one_level(query, reference_points=where[:, :, :1], **first._asdict()))


def test_claim_10_more_points_replace_levels_only_if_the_maps_are_identical() -> None:
    """Copies of one map as levels: the same parameters give the same output. One other map: they do not."""
    assert many_points_for_levels(2, identical=True) < 1e-12
    assert many_points_for_levels(2, identical=False) > 0.01


def test_claim_10_more_points_do_not_replace_levels_of_boxes() -> None:
    """With boxes as references offsets are divided by P, which then counts the points of all levels."""
    assert many_points_for_levels(4, identical=True) > 0.01


def initial_offsets(coordinates: int) -> tuple[Tensor, Tensor]:
    """Sampling locations at initialisation, relative to the reference's centre, and the references."""
    recorder = Recorder()
    module, where = deformable_attention(recorder=recorder), references(coordinates)
    module(content(), reference_points=where, **memory()._asdict())
    return recorder.locations[0] - where[:, :, None, :, None, :2], where


def directions() -> Tensor:
    """(head, 2): angle 2 pi h / M, longer side 1."""
    angles = [2 * math.pi * head / HEADS for head in range(HEADS)]
    rays = torch.tensor([(math.cos(angle), math.sin(angle)) for angle in angles], dtype=torch.float64)
    return rays / rays.abs().amax(-1, keepdim=True)


def test_claim_11_points_are_measured_in_cells_of_their_level() -> None:
    """2-d references: after division by (W, H) point i of a new module lies i + 1 cells away, on every level."""
    offset, _ = initial_offsets(2)
    steps = torch.arange(1, POINTS + 1, dtype=torch.float64)[:, None] * directions()[:, None, None]
    width_height = torch.tensor(SHAPES, dtype=torch.float64).flip(-1)[:, None]
    torch.testing.assert_close(offset * width_height, steps.expand_as(offset))
    assert largest(offset * width_height.flip(-1) - steps) > 0.5  # (H, W) is another unit


def test_claim_11_points_are_measured_in_boxes() -> None:
    """4-d references: after division by P point i lies (i + 1) / P of the half box away, the last one on its border."""
    offset, where = initial_offsets(4)
    half = where[:, :, None, :, None, 2:] / 2
    shares = torch.arange(1, POINTS + 1, dtype=torch.float64)[:, None] / POINTS * directions()[:, None, None]
    torch.testing.assert_close(offset / half, shares.expand_as(offset))
    on_border = (offset / half)[..., -1, :].abs().amax(-1)
    torch.testing.assert_close(on_border, torch.ones_like(on_border))


def test_claim_11_a_new_module_stays_within_the_box_because_of_p() -> None:
    """However many points there are, none starts outside the box. Undivided, all but the first would."""
    for points in (1, 4, 9):
        recorder = Recorder()
        module, where = deformable_attention(points=points, recorder=recorder), references(4)
        module(content(), reference_points=where, **memory()._asdict())
        reach = ((recorder.locations[0] - where[:, :, None, :, None, :2]) / where[:, :, None, :, None, 2:] * 2).abs()
        assert reach.max() <= 1 + 1e-12
        assert (points * reach.amax(-1) > 1 + 1e-12).double().mean().item() == pytest.approx((points - 1) / points)


def attend_to(module: MultiScaleDeformableAttention, cells: int, shapes: list[tuple[int, int]]) -> Tensor:
    maps = torch.randn(2, cells, EMBED, dtype=torch.float64)
    spatial_shapes = torch.tensor(shapes)
    return module(
        content(),
        maps,
        reference_points=references(2),
        spatial_shapes=spatial_shapes,
        level_start_index=level_starts(spatial_shapes),
    )


def test_claim_13_the_length_is_the_sum_of_products() -> None:
    """Maps of 4 x 6 and 2 x 11 cells are 46 cells. Their sides sum to 23, which is refused."""
    module = deformable_attention()
    assert attend_to(module, 4 * 6 + 2 * 11, [(4, 6), (2, 11)]).shape == (2, QUERIES, EMBED)
    with pytest.raises(ValueError, match=r"23 cells.*sum of H \* W = 46"):
        attend_to(module, 4 + 6 + 2 + 11, [(4, 6), (2, 11)])
