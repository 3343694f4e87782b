"""The limits are neither too tight nor too loose: another order stays inside, a lower precision does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from detr_conformance.harness.case import TORCH_DTYPES, Case
from detr_conformance.harness.mismatch import Mismatch
from detr_conformance.harness.subject import Settings, Subject
from detr_conformance.topics.deformable_attention.cases.core import (
    Structure,
    case_at,
    everywhere,
    inside,
    on_kinks,
    one_cell,
    softmaxed,
)
from detr_conformance.topics.deformable_attention.checks.agreement import check_gradients, check_output
from detr_conformance.topics.deformable_attention.checks.oracle import ARGUMENTS, Rounding, expectations, oracle
from detr_reference.deformable_attention.core import ms_deform_attn

Core = Callable[..., Tensor]

STRUCTURES = {
    "small": (Structure(), everywhere),
    "long rows": (Structure(((2, 334), (190, 3)), channels=8), inside),
    "contended": (Structure(((3, 4),), queries=200, heads=1, points=4), one_cell),
    "kinks": (Structure(((4, 8), (5, 6))), on_kinks),
    "a real layer": (Structure(((16, 21), (8, 11)), queries=30, heads=4, channels=32), everywhere),
}
SEEDS = range(8)


def reversed_points(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    return ms_deform_attn(value, shapes, starts, locations.flip(4), weights.flip(4))


def level_by_level(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Each level by itself, last level first, added up in float32 or better."""
    wide = torch.promote_types(value.dtype, torch.float32)
    total = torch.zeros((), dtype=wide)
    for level in reversed(range(len(shapes))):
        start, cells = int(starts[level]), int(shapes[level].prod())
        total = total + ms_deform_attn(
            value[:, start : start + cells].to(wide),
            shapes[level : level + 1],
            starts[:1],
            locations[:, :, :, level : level + 1].to(wide),
            weights[:, :, :, level : level + 1].to(wide),
        )
    return total.to(value.dtype)


def by_grid_sample(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Other coordinate arithmetic: ((2 x - 1 + 1) W - 1) / 2, and other interpolation weights."""
    wide = torch.promote_types(value.dtype, torch.float32)
    batch, _, heads, channels = value.shape
    grid = 2 * locations.to(wide) - 1
    sampled = []
    for level, (height, width) in enumerate(shapes.tolist()):
        start = int(starts[level])
        maps = value[:, start : start + height * width].to(wide).flatten(2).transpose(1, 2)
        maps = maps.reshape(batch * heads, channels, height, width)
        where = grid[:, :, :, level].transpose(1, 2).flatten(0, 1)
        sampled.append(torch.nn.functional.grid_sample(maps, where, align_corners=False))
    a = weights.to(wide).transpose(1, 2).flatten(0, 1).flatten(2)[:, None]
    output = (torch.stack(sampled, -2).flatten(-2) * a).sum(-1)
    return output.view(batch, heads * channels, -1).transpose(1, 2).to(value.dtype)


def lower(dtype: torch.dtype) -> Callable[[Core], Core]:
    def make(core: Core) -> Core:
        def lowered(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
            return core(value.to(dtype), shapes, starts, locations, weights.to(dtype)).to(value.dtype)

        return lowered

    return make


def case_of(dtype: str, kind: str, seed: int) -> tuple[Subject, Case]:
    subject = Subject("ms_deform_attn", ms_deform_attn, dtype, settings=Settings(seed=seed))
    s, pixels = STRUCTURES[kind]
    return subject, case_at(subject, s, pixels, seed, weights=softmaxed if kind == "a real layer" else None)


def judge(subject: Subject, case: Case, core: Core) -> None:
    result = subject.replacing(core).run(case)
    check_output(subject, result.output, case, precise=True)
    check_gradients(subject, result.gradients, case, precise=True)


@pytest.mark.parametrize("kind", STRUCTURES)
@pytest.mark.parametrize("core", [ms_deform_attn, reversed_points, level_by_level, by_grid_sample])
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_orders_of_the_same_arithmetic_pass_at_every_seed(dtype: str, core: Core, kind: str) -> None:
    """With room to spare where no final rounding uses up the limit."""
    for seed in SEEDS:
        subject, case = case_of(dtype, kind, seed)
        judge(subject, case, core)
        if dtype in ("float64", "float32"):
            assert subject.worst_ratio is not None
            assert subject.worst_ratio < 0.7


def rounded_samples(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Interpolates in float32, rounds each sample to the claimed dtype, and adds up in it.

    The next lower precision of a half dtype is that dtype itself.
    """
    batch, queries, heads, levels, points = weights.shape
    one = torch.ones_like(weights[..., :1, :1])
    total = torch.zeros((), dtype=value.dtype)
    for level in range(levels):
        start, cells = int(starts[level]), int(shapes[level].prod())
        for point in range(points):
            sample = ms_deform_attn(
                value[:, start : start + cells],
                shapes[level : level + 1],
                starts[:1],
                locations[:, :, :, level : level + 1, point : point + 1],
                one,
            ).view(batch, queries, heads, -1)
            total = total + sample * weights[:, :, :, level, point, None]
    return total.flatten(2)


LOWER: dict[str, list[Core]] = {
    "float64": [lower(torch.float32)(ms_deform_attn)],
    "float32": [lower(torch.float16)(ms_deform_attn), lower(torch.bfloat16)(ms_deform_attn)],
    "float16": [rounded_samples, lower(torch.bfloat16)(ms_deform_attn)],
    "bfloat16": [rounded_samples],
}


@pytest.mark.parametrize("kind", STRUCTURES)
@pytest.mark.parametrize(("dtype", "core"), [(dtype, core) for dtype, cores in LOWER.items() for core in cores])
def test_a_precision_lower_fails_at_every_seed(dtype: str, core: Core, kind: str) -> None:
    for seed in SEEDS:
        subject, case = case_of(dtype, kind, seed)
        with pytest.raises(Mismatch):
            check_output(subject, subject.replacing(core).forward(case), case, precise=True)


@pytest.mark.parametrize("bits", [10, 11])
def test_a_tensor_float_32_product_fails(bits: int) -> None:
    """Values with a significand of 10 or 11 bits, as matrix units of GPUs round them by default."""

    def truncated(value: Tensor, *rest: Tensor) -> Tensor:
        mask = -1 << (23 - bits)
        return ms_deform_attn((value.view(torch.int32) & mask).view(torch.float32), *rest)

    for seed in SEEDS:
        subject, case = case_of("float32", "small", seed)
        with pytest.raises(Mismatch):
            check_output(subject, subject.replacing(truncated).forward(case), case, precise=True)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", STRUCTURES)
def test_half_of_the_limit_is_not_needed(dtype: str, kind: str) -> None:
    """B <= k u S: the worst error of same-precision orders, element by element, never comes near the derived limit."""
    for seed in SEEDS:
        _, case = case_of(dtype, kind, seed)
        right = expectations(case, Rounding.of(dtype), backward=False)["output"]
        arguments = [case[name] for name in ARGUMENTS]
        orders = [core(*arguments).double() for core in (ms_deform_attn, reversed_points, level_by_level)]
        worst = torch.stack([(order - right.expected).abs() for order in orders]).amax(0)
        assert (2 * worst <= right.limit).all()


def test_limits_know_the_scale_of_coordinates() -> None:
    """A float32 coordinate near 300 is worth less than one near 3: the limit grows with W."""
    ratios = []
    for width in (8, 334):
        subject = Subject("ms_deform_attn", ms_deform_attn, "float32")
        case = case_at(subject, Structure(((2, width),), queries=200, points=1), inside)
        right = expectations(case, Rounding.of("float32"), backward=False)["output"]
        ratios.append((right.limit / oracle(case, backward=False)["output"].abs()).median())
    assert ratios[1] > 10 * ratios[0]
