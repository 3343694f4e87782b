"""Calls of `dino_decoder` that show one thing: sublayers silenced, small streams, wider maps, small boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from detr_conformance.harness.block_case import parameters_of, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.queries.cases.decoder import LONG, SMOOTH, DecoderStructure, decoder_case


def silenced(case: Case, *ends: str) -> Case:
    """The case with the parameters whose names end so at zero."""
    return scaled(case, 0.0, *ends)


def scaled(case: Case, factor: float, *ends: str) -> Case:
    """The case with the parameters whose names end so multiplied by a factor."""
    changed = {name: factor * t for name, t in parameters_of(case).items() if name.endswith(ends)}
    return with_parameters(case, **{name.replace(".", "__"): tensor for name, tensor in changed.items()})


def small_streams(subject: Subject) -> Case:
    """What every norm sees has a variance of about 1e-5."""
    case = decoder_case(subject, replace(DecoderStructure(), layers=1), note="small streams")
    ends = ("out_proj", "norms.0", "output_proj", "norms.1", "ffns.0.layers.1", "norms.2")
    small = scaled(case, 5e-3, *(f"{end}.{kind}" for end in ends for kind in ("weight", "bias")))
    return small.having(query=case["query"] * 5e-3)


def whole_maps(subject: Subject, s: DecoderStructure) -> Case:
    """Images on maps that the first one fills; ratios that every dtype knows, here and on wider maps."""
    s = replace(s, levels=((4, 6), (3, 4)), valid=(((4, 6), (3, 4)), ((2, 3), (3, 2))))
    return decoder_case(subject, s, note="maps as small as they can be")


def on_wider_maps(subject: Subject, case: Case, factor: int) -> Case:
    """The same images on maps `factor` times as high and wide, with other contents in the padding."""
    fill = Filler(subject.dtype, subject.settings.seed, "on wider maps", factor)
    shapes = case["spatial_shapes"]
    sizes = shapes.prod(-1).tolist()
    maps, masks = [], []
    for (height, width), cells, mask in zip(
        shapes.tolist(), case["memory"].split(sizes, 1), case["key_padding_mask"].split(sizes, 1), strict=True
    ):
        wide = 9 * fill.normal(len(cells), factor * height, factor * width, cells.shape[-1]).to(cells)
        wide[:, :height, :width] = cells.unflatten(1, (height, width))
        padded = torch.ones(wide.shape[:3], dtype=torch.bool)
        padded[:, :height, :width] = mask.unflatten(1, (height, width))
        maps.append(wide.flatten(1, 2))
        masks.append(padded.flatten(1))
    return case.having(
        memory=torch.cat(maps, 1),
        key_padding_mask=torch.cat(masks, 1),
        spatial_shapes=shapes * factor,
        level_start_index=case["level_start_index"] * factor**2,
        valid_ratios=case["valid_ratios"] / factor,
    )


def fine_boxes(subject: Subject) -> Case:
    """Small boxes on a long map whose columns alternate in sign: a box that is rounded to half precision is read as
    another place. Nothing else is as imprecise: offsets are too small to matter, refinement adds a number that every
    dtype knows, and the other sublayers add nothing."""
    s = replace(LONG, layers=2, queries=8)
    case = silenced(
        decoder_case(subject, s, note="fine boxes"),
        "bbox_embed.0.layers.2.weight",
        "attentions.0.out_proj.weight",
        "ffns.0.layers.1.weight",
        "ref_point_head.layers.1.weight",
    )
    boxes = case["reference_points"].clone()
    boxes[..., 0] = 0.55 + boxes[..., 0] * 0.4
    boxes[..., 2:] = 1 / 128
    (height, width), *_ = s.levels
    memory = case["memory"].clone()
    column = torch.arange(height * width) % width
    memory[:, : height * width] = memory[:, :1] * (1 - 2 * (column % 2))[:, None]
    case = case.having(reference_points=boxes, memory=memory)
    return with_parameters(case, bbox_embed__0__layers__2__bias=torch.full((4,), 0.25))


LEVELS = ((6, 9), (4, 7), (3, 5), (2, 3), (2, 2), (1, 2), (1, 1))


def many_levels(subject: Subject) -> Iterator[Case]:
    """Four levels, fewer and more, each with ratios of its own; of several images, one of which fills all maps."""
    for number in (1, 3, 4, 5, 7):
        levels = LEVELS[:number]
        narrow, low = [(h, max(1, w - 1)) for h, w in levels], [(max(1, h - 1), w) for h, w in levels]
        valid = (tuple(narrow), levels, tuple(low))
        s = replace(DecoderStructure(), levels=levels, valid=valid, layers=1, points=1 + number % 3)
        yield decoder_case(subject, s, note=f"{number} levels")


def as_deep_as_published(subject: Subject) -> Iterator[Case]:
    """Six layers that read four levels."""
    levels, valid = (*SMOOTH.levels, (3, 4), (2, 3)), tuple((*image, (3, 3), (2, 2)) for image in SMOOTH.valid)
    yield decoder_case(subject, replace(SMOOTH, levels=levels, valid=valid, layers=6), note="six layers", smooth=True)


def published(subject: Subject) -> Case:
    """Widths, heads, points and levels as published, in a layer, and more queries than a block has threads."""
    levels = ((20, 33), (10, 17), (5, 9), (3, 5))
    s = DecoderStructure(
        levels=levels,
        valid=(levels, ((15, 33), (8, 17), (4, 9), (3, 5))),
        queries=270,
        heads=8,
        channels=32,
        points=4,
        layers=1,
        hidden=64,
        classes=80,
    )
    return decoder_case(subject, s, note="widths as published")
