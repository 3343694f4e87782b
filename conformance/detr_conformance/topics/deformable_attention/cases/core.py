"""Cases of `ms_deform_attn`: Hypothesis draws the structure and a seed, a CPU generator fills in the numbers.

Locations are made from pixel coordinates, since it is there that something happens: cell centres, kinks, borders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.case import Case
from detr_conformance.harness.few_shapes.drawing import SEEDS, composite, contents
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject

Shapes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Structure:
    """The sizes of a call: levels as (H, W), then B, Q, M, D, P."""

    levels: tuple[tuple[int, int], ...] = ((5, 7), (3, 4))
    batch: int = 2
    queries: int = 6
    heads: int = 3
    channels: int = 5
    points: int = 4

    @property
    def cells(self) -> int:
        return sum(h * w for h, w in self.levels)

    def within(self, side: int) -> Structure:
        """The same with sides no longer than `side`."""
        return replace(self, levels=tuple((min(h, side), min(w, side)) for h, w in self.levels))

    @property
    def samples(self) -> tuple[int, int, int, int, int]:
        """Shape of the attention weights: (B, Q, M, L, P)."""
        return self.batch, self.queries, self.heads, len(self.levels), self.points

    def sizes(self) -> Tensor:
        """(L, 1, 2) float64: (W, H), to be broadcast over points."""
        return torch.tensor([(w, h) for h, w in self.levels], dtype=torch.float64)[:, None, :]


# As many cells as Structure() has, in levels of another shape: every tensor keeps its shape.
TURNED = Structure(((7, 5), (4, 3)))


@composite
def structures(draw: st.DrawFn, side: int = 9, levels: int = 4, least: int = 1) -> Structure:
    """Small calls of every kind: unequal sides, L != P more often than not, one side of 50 or more now and then."""
    shape = st.tuples(st.integers(least, side), st.integers(least, side))
    drawn = draw(st.lists(shape, min_size=1, max_size=levels))
    if draw(st.integers(0, 3)) == 3:
        drawn[0] = (draw(st.integers(2, 4)), draw(st.sampled_from((50, 61, 64))))
    return Structure(
        levels=tuple(drawn),
        batch=draw(st.integers(1, 3)),
        queries=draw(st.integers(1, 12)),
        heads=draw(st.integers(1, 4)),
        channels=draw(st.integers(1, 9)),
        points=draw(st.integers(1, 5)),
    )


Pixels = Callable[[Filler, Structure], Tensor]


def inside(fill: Filler, s: Structure) -> Tensor:
    """Pixel coordinates between the outermost cell centres, away from kinks where the map has room for it."""
    room = (s.sizes() - 1).expand(*s.samples, 2)
    cell = (fill.uniform(0, 1, *s.samples, 2) * room).floor().minimum((room - 1).clamp(min=0))
    return (cell + fill.uniform(0.1, 0.9, *s.samples, 2)).minimum(room)


def border(fill: Filler, s: Structure) -> Tensor:
    """At least one coordinate in (-1, 0) or (size - 1, size), where corners are missing."""
    return _border(fill, s, inside(fill, s))


def outside(fill: Filler, s: Structure) -> Tensor:
    """At least one coordinate beyond [-1, size], near enough to reach a neighbouring row or level by a wrong index."""
    return _outside(fill, s, inside(fill, s))


def everywhere(fill: Filler, s: Structure) -> Tensor:
    """Mostly inside, some on the border, some outside."""
    where = fill.uniform(0, 1, *s.samples, 1)
    within = inside(fill, s)
    near = torch.where(where < 0.6, within, _border(fill, s, within))
    return torch.where(where < 0.85, near, _outside(fill, s, within))


def _border(fill: Filler, s: Structure, within: Tensor) -> Tensor:
    depth = fill.uniform(0.1, 0.9, *s.samples, 2)
    return _either(fill, s, within, -depth, s.sizes() - 1 + depth)


def _outside(fill: Filler, s: Structure, within: Tensor) -> Tensor:
    distance = fill.uniform(0.25, 3.0, *s.samples, 2)
    return _either(fill, s, within, -1 - distance, s.sizes() + distance)


def _either(fill: Filler, s: Structure, within: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """At least one coordinate is that of `low` or `high`, the other may be that of `within`."""
    beyond = torch.where(fill.chance(0.5, *s.samples, 2), low, high)
    use = fill.chance(0.5, *s.samples, 2)
    use[..., 0] |= ~use[..., 1]
    return torch.where(use, beyond, within)


def one_cell(fill: Filler, s: Structure) -> Tensor:
    """Every sample of a level between the same four cells, so that all of them contend."""
    corner = torch.minimum((s.sizes() - 2).clamp(min=0), torch.tensor(1.0, dtype=torch.float64))
    return corner + fill.uniform(0.1, 0.9, *s.samples, 2)


def on_kinks(fill: Filler, s: Structure) -> Tensor:
    """Whole pixel coordinates from -1 to size, in x, in y, or in both."""
    whole = torch.floor(fill.uniform(0, 1, *s.samples, 2) * (s.sizes() + 2)) - 1
    use = fill.chance(0.7, *s.samples, 2)
    use[..., 0] |= ~use[..., 1]
    return torch.where(use, whole, everywhere(fill, s))


def to_locations(pixels: Tensor, s: Structure) -> Tensor:
    """location = (pixel + 0.5) / size."""
    return (pixels + 0.5) / s.sizes()


def to_pixels(locations: Tensor, s: Structure) -> Tensor:
    """pixel = location * size - 0.5, in float64."""
    return locations.double() * s.sizes() - 0.5


def off_kinks(fill: Filler, s: Structure, pixels: Tensor, draw: Pixels) -> Tensor:
    """Locations in the claimed dtype; those that quantisation moved onto a kink are drawn anew a few times.

    On a side of one cell there is nothing between kinks to be drawn.
    """
    locations = to_locations(pixels, s).to(fill.dtype)
    avoidable = s.sizes() > 1
    for _ in range(4):
        quantised = to_pixels(locations, s)
        kinked = (((quantised - quantised.round()).abs() < 0.02) & avoidable).any(-1, keepdim=True)
        if not kinked.any():
            break
        locations = torch.where(kinked, to_locations(draw(fill, s), s).to(fill.dtype), locations)
    return locations


def signed(fill: Filler, s: Structure) -> Tensor:
    """Attention weights of either sign, not normalised."""
    return fill.uniform(-1.5, 1.5, *s.samples)


def softmaxed(fill: Filler, s: Structure) -> Tensor:
    """Attention weights as a model makes them."""
    b, q, m, levels, points = s.samples
    return fill.normal(b, q, m, levels * points).softmax(-1).view(s.samples)


def constant(fill: Filler, s: Structure) -> Tensor:
    """A map without slopes, so that no coordinate matters; its value, 89/64, makes every product need rounding."""
    return torch.full((s.batch, s.cells, s.heads, s.channels), 89 / 64, dtype=torch.float64)


def make_case(
    fill: Filler,
    s: Structure,
    *,
    locations: Tensor,
    weights: Tensor | None = None,
    value: Tensor | None = None,
    grad_output: Tensor | None = None,
    note: str = "",
    layout: str = "contiguous",
) -> Case:
    """A case from its parts; what is not given is drawn. Everything floating is quantised to the claimed dtype."""
    if value is None:
        value = fill.normal(s.batch, s.cells, s.heads, s.channels)
    if weights is None:
        weights = signed(fill, s)
    if grad_output is None:
        grad_output = fill.normal(s.batch, s.queries, s.heads * s.channels)
    shapes = torch.tensor(s.levels, dtype=torch.int64).reshape(-1, 2)
    sizes = shapes.prod(-1)
    tensors = {
        "value": value.to(fill.dtype),
        "spatial_shapes": shapes,
        "level_start_index": sizes.cumsum(0) - sizes,
        "sampling_locations": locations.to(fill.dtype),
        "attention_weights": weights.to(fill.dtype),
        "grad_output": grad_output.to(fill.dtype),
    }
    return Case(tensors, layout, note)


def case_at(subject: Subject, s: Structure, pixels: Pixels, *seed: Any, note: str = "", **parts: Any) -> Case:
    """A case with a fixed structure whose samples lie where `pixels` puts them."""
    s = s.within(longest_side(subject))
    fill = Filler(subject.dtype, subject.settings.seed, note, s, *seed)
    locations = (
        off_kinks(fill, s, pixels(fill, s), pixels) if pixels is not on_kinks else to_locations(on_kinks(fill, s), s)
    )
    parts = {name: part(fill, s) if callable(part) else part for name, part in parts.items()}
    return make_case(fill, s, locations=locations, note=note or pixels.__name__, **parts)


def longest_side(subject: Subject) -> int:
    """Under the variant `coordinates: half`, the longest side on which a coordinate is known to a quarter of a cell.

    What a right result is, is undecided beyond.
    """
    half = subject.variant("coordinates") == "half" and subject.torch_dtype.itemsize == 2
    return round(0.25 / (4 * torch.finfo(subject.torch_dtype).eps)) if half else 1 << 20


def drawn_cases(
    subject: Subject,
    pixels: Pixels = everywhere,
    *,
    side: int = 9,
    least: int = 1,
    layouts: Sequence[str] = ("contiguous",),
    **parts: Any,
) -> st.SearchStrategy[Case]:
    """Cases of every structure whose samples lie where `pixels` puts them."""

    @composite
    def draw_case(draw: st.DrawFn) -> Case:
        s = draw(structures(side, least=least))
        layout = draw(contents(st.sampled_from(list(layouts))))
        return case_at(subject, s, pixels, draw(SEEDS), **parts).laid_out(layout)

    return draw_case()


def structure_of(case: Case) -> Structure:
    """The sizes of an existing case."""
    batch, _, heads, channels = case["value"].shape
    _, queries, _, _, points, _ = case["sampling_locations"].shape
    levels = tuple((int(h), int(w)) for h, w in case["spatial_shapes"].tolist())
    return Structure(levels, batch, queries, heads, channels, points)


def pixels_of(case: Case) -> Tensor:
    """Pixel coordinates (x, y) of every sample of a case, float64."""
    return to_pixels(case["sampling_locations"], structure_of(case))
