"""Cases of contrastive denoising."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.block_case import block_case
from detr_conformance.harness.case import Case
from detr_conformance.harness.few_shapes.drawing import ANY_LAYOUT, SEEDS, composite
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject

CLASSES, CHANNELS, QUERIES = 4, 3, 5
UNNOTICED = 1e-6  # a scale at which noise is there, but smaller than anything that is compared
QUIET: dict[str, Any] = {"label_noise_ratio": 0.0, "box_noise_scale": UNNOTICED}
APART = 0.4  # a scale below 1/2: no corners change places, so that every one can be read off the reference


def denoising_case(
    subject: Subject,
    counts: Sequence[int],
    note: str,
    *,
    boxes: Tensor | None = None,
    labels: Sequence[int] | None = None,
    classes: int = CLASSES,
    channels: int = CHANNELS,
    **settings: Any,
) -> Case:
    """A call for images with these numbers of boxes: roomy ones of all classes in turn unless given."""
    fill = Filler(subject.dtype, subject.settings.seed, "denoising", note, tuple(counts))
    total = sum(counts)
    inputs = {
        "target_labels": torch.tensor(
            [*labels] if labels else [(3 * box + 1) % classes for box in range(total)]
        ).long(),
        "target_boxes": roomy_boxes(fill, total) if boxes is None else boxes,
        "target_counts": torch.tensor(counts),
        "label_embedding": distinct_rows(fill, classes, channels),
    }
    return block_case(subject, inputs, settings={"num_queries": QUERIES, **settings}, note=note)


def roomy_boxes(fill: Filler, number: int) -> Tensor:
    """Boxes around the middle of the image, wide and high ones in turn: noise of scale 1/2 does not reach the border,
    and width is never confounded with height."""
    centre = fill.uniform(0.45, 0.55, number, 2)
    long, short = fill.uniform(0.32, 0.4, number), fill.uniform(0.16, 0.2, number)
    wide = torch.arange(number) % 2 == 0
    size = torch.stack((torch.where(wide, long, short), torch.where(wide, short, long)), -1)
    return torch.cat((centre, size), -1)


def scattered_boxes(fill: Filler, number: int) -> Tensor:
    """Boxes anywhere in the image, of any size."""
    low, high = fill.uniform(0, 1, 2, number, 2).sort(0).values
    return torch.cat(((low + high) / 2, high - low), -1)


def degenerate_boxes() -> Tensor:
    """Ten boxes: points, lines, the whole image and half of it, and sides near eps and below."""
    points = [[0.5, 0.3, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
    lines = [[0.4, 0.6, 0.3, 0.0], [0.7, 0.2, 0.0, 0.1], [1.0, 0.5, 0.0, 1.0]]
    whole = [[0.5, 0.5, 1.0, 1.0], [0.5, 0.25, 1.0, 0.5]]
    tiny = [[0.25, 0.75, 2**-12, 2**-11], [0.75, 0.125, 0.5, 2**-10]]
    return torch.tensor(points + lines + whole + tiny, dtype=torch.float64)


def distinct_rows(fill: Filler, classes: int, channels: int = CHANNELS) -> Tensor:
    """Rows that differ in the first channel, also in bfloat16 if they are few, and are never 0."""
    rows = fill.uniform(-1, 1, classes, channels)
    rows[:, 0] = torch.arange(1, classes + 1) / 4
    return rows


# -- which cases ----------------------------------------------------------------------------------------------


def representative_contrastive_denoising(subject: Subject) -> list[Case]:
    """Images of 3, 0, 1 and 2 boxes; two groups, three, one."""
    return [
        denoising_case(subject, (3, 0, 1, 2), "two groups", denoising_number=8),
        denoising_case(subject, (2, 1), "three groups", denoising_number=6, box_noise_scale=APART, num_queries=1),
        denoising_case(subject, (1, 4), "one group", denoising_number=2, label_noise_ratio=1.0),
    ]


def quiet(subject: Subject) -> Iterator[Case]:
    """True labels and boxes: where a query lies tells which box it is."""
    yield denoising_case(subject, (3, 1, 2), "quiet, three groups", denoising_number=9, **QUIET)
    yield denoising_case(subject, (1, 3), "quiet, one group", denoising_number=4, **QUIET)
    yield denoising_case(subject, (2, 2), "quiet, no empty slot", denoising_number=4, **QUIET)


def noisy(subject: Subject, counts: Sequence[int] = (3, 3), note: str = "", **settings: Any) -> Case:
    """Some thousand denoising queries, the sample of which statistics are taken."""
    number = settings.pop("denoising_number", 300 * max(counts))
    return denoising_case(subject, counts, f"a sample {note}".strip(), denoising_number=number, **settings)


def large(subject: Subject) -> Iterator[Case]:
    """Many images, slots, groups, classes, matching queries; without noise, so that all can be read off."""
    yield denoising_case(subject, (3, 0, 1, 2) * 17, "68 images", denoising_number=9, **QUIET)
    yield denoising_case(subject, (300, 7), "300 slots", denoising_number=600, **QUIET)
    yield denoising_case(subject, (1, 0, 1), "517 groups", denoising_number=517, **QUIET)
    yield denoising_case(subject, (37, 19), "1203 classes", classes=1203, labels=[*range(55), 1202], **QUIET)
    yield denoising_case(subject, (300, 0), "300 classes", classes=300, labels=range(300), **QUIET)


def published_contrastive_denoising(subject: Subject) -> Iterator[Case]:
    """A batch of 16 images, of COCO's classes, beside 900 matching queries."""
    counts = (7, 1, 0, 23, 4, 2, 14, 63, 5, 9, 1, 3, 11, 2, 6, 30)
    sizes: dict[str, Any] = {"classes": 91, "channels": 256, "num_queries": 900, "denoising_number": 100}
    yield denoising_case(subject, counts, "of DINO", **sizes, **QUIET)


@composite
def _drawn(draw: st.DrawFn, subject: Subject) -> Case:
    counts = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    fill = Filler(subject.dtype, subject.settings.seed, draw(SEEDS))
    return denoising_case(
        subject,
        counts,
        "drawn",
        boxes=scattered_boxes(fill, sum(counts)),
        num_queries=draw(st.integers(0, 7)),
        denoising_number=draw(st.integers(1, 60)),
        label_noise_ratio=draw(st.sampled_from((0.0, 0.5, 1.0))),
        box_noise_scale=draw(st.sampled_from((0.25, APART, 1.0))),
    ).laid_out(draw(ANY_LAYOUT))


def drawn(subject: Subject) -> st.SearchStrategy[Case]:
    return _drawn(subject)
