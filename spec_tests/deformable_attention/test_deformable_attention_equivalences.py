"""What deformable attention is equal to, and not: linearity, many points for many levels, order of points."""

from __future__ import annotations

import torch

from detr_reference.deformable_attention.core import ms_deform_attn
from helpers.tiny.msda_cases import Case, make_case


def one_level_many_points(case: Case) -> Case:
    """(L, P) rearranged into (1, L*P), reading the first map only."""
    shapes = case.spatial_shapes[:1]
    return Case(
        case.value[:, : int(shapes.prod())],
        shapes,
        case.level_start_index[:1],
        case.sampling_locations.flatten(3, 4).unsqueeze(3),
        case.attention_weights.flatten(3, 4).unsqueeze(3),
    )


def test_more_points_replace_levels_when_the_maps_are_identical() -> None:
    """(L, P) on L copies of one map equals (1, L*P) on the map, far and border samples included."""
    case = make_case([(6, 9)] * 3, points=2, queries=20, seed=1)
    case = case._replace(value=case.value[:, :54].repeat(1, 3, 1, 1))
    torch.testing.assert_close(ms_deform_attn(*case), ms_deform_attn(*one_level_many_points(case)))


def test_more_points_do_not_replace_levels_when_the_maps_differ() -> None:
    """The same rearrangement on different maps is something else."""
    case = make_case([(6, 9)] * 3, points=2, queries=20, seed=1)
    assert (ms_deform_attn(*case) - ms_deform_attn(*one_level_many_points(case))).abs().max() > 0.1


def test_levels_add_up() -> None:
    """The result is the sum of calls with one level each."""
    case = make_case([(6, 4), (2, 5), (51, 2)], seed=2)
    starts = [*case.level_start_index.tolist(), case.value.shape[1]]
    parts = [
        ms_deform_attn(
            case.value[:, starts[level] : starts[level + 1]],
            case.spatial_shapes[level : level + 1],
            torch.tensor([0]),
            case.sampling_locations[:, :, :, level : level + 1],
            case.attention_weights[:, :, :, level : level + 1],
        )
        for level in range(3)
    ]
    torch.testing.assert_close(ms_deform_attn(*case), torch.stack(parts).sum(0))


def test_order_of_points_and_queries() -> None:
    """Points of a level are a set; queries are independent rows."""
    case = make_case([(6, 4), (2, 5)], points=4, queries=7, seed=3)
    output = ms_deform_attn(*case)
    points, queries = torch.tensor([2, 0, 3, 1]), torch.tensor([6, 1, 0, 0, 4])
    moved = case._replace(
        sampling_locations=case.sampling_locations[:, queries][:, :, :, :, points],
        attention_weights=case.attention_weights[:, queries][..., points],
    )
    torch.testing.assert_close(ms_deform_attn(*moved), output[:, queries])


def test_linear_in_value_and_in_weights() -> None:
    """f(2u - 3v) = 2 f(u) - 3 f(v), in each of the two arguments."""
    case, other = make_case([(6, 4), (2, 5)], seed=4), make_case([(6, 4), (2, 5)], seed=5)
    for name in ("value", "attention_weights"):
        mixed = case._replace(**{name: 2 * getattr(case, name) - 3 * getattr(other, name)})
        swapped = case._replace(**{name: getattr(other, name)})
        torch.testing.assert_close(ms_deform_attn(*mixed), 2 * ms_deform_attn(*case) - 3 * ms_deform_attn(*swapped))


def test_mirrored_maps() -> None:
    """Mirroring every map and every location leaves the result: neither side of an axis is special."""
    case = make_case([(6, 4), (2, 5)], queries=30, seed=6)
    for axis in (0, 1):  # x, y
        levels = case.value.split([height * width for height, width in case.shapes()], dim=1)
        mirrored = [
            level.unflatten(1, shape).flip(2 - axis).flatten(1, 2)
            for level, shape in zip(levels, case.shapes(), strict=True)
        ]
        locations = case.sampling_locations.clone()
        locations[..., axis] = 1 - locations[..., axis]
        other = case._replace(value=torch.cat(mirrored, dim=1), sampling_locations=locations)
        torch.testing.assert_close(ms_deform_attn(*other), ms_deform_attn(*case))


def test_transposed_maps() -> None:
    """Exchanging x and y everywhere, (H, W) included, leaves the result."""
    case = make_case([(6, 4), (2, 5)], queries=30, seed=7)
    levels = case.value.split([height * width for height, width in case.shapes()], dim=1)
    transposed = [
        level.unflatten(1, shape).transpose(1, 2).flatten(1, 2)
        for level, shape in zip(levels, case.shapes(), strict=True)
    ]
    other = case._replace(
        value=torch.cat(transposed, dim=1),
        spatial_shapes=case.spatial_shapes.flip(-1),
        sampling_locations=case.sampling_locations.flip(-1),
    )
    torch.testing.assert_close(ms_deform_attn(*other), ms_deform_attn(*case))
