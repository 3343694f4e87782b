"""Cases of post-processing. Most have scores so far apart that no rounding exchanges two of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.block_case import block_case
from detr_conformance.harness.case import Case
from detr_conformance.harness.few_shapes.drawing import SEEDS, composite
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.harness.suite_test import HALF

QUERIES, CLASSES, SELECTED = 6, 4, 9
DENSE = ("contiguous", "offset")  # other strides are asked for by BLK-4
SIZES = ((480, 640), (1333, 800), (37, 500))


def detections_case(
    subject: Subject,
    logits: Tensor,
    note: str,
    *,
    scores: str = "sigmoid",
    num_select: int = SELECTED,
    boxes: Tensor | None = None,
    sizes: tuple[tuple[int, int], ...] = SIZES[:2],
) -> Case:
    """A call; a target that returns as many detections as there are queries is asked for so many.

    Raises:
        NotProvided: the target has other scores.
    """
    if subject.variant("postprocess_scores") not in ("any", scores):
        raise NotProvided(f"the target has no {scores} scores")
    if subject.variant("num_select") == "queries":
        num_select = logits.shape[1]
    inputs = {
        "pred_logits": logits,
        "pred_boxes": boxes_of(subject, logits.shape[0], logits.shape[1], note) if boxes is None else boxes,
        "sizes": torch.tensor(sizes[: len(logits)]),
    }
    return block_case(subject, inputs, settings={"scores": scores, "num_select": num_select}, note=note)


def apart(subject: Subject, batch: int, queries: int, classes: int, seed: str = "") -> Tensor:
    """Logits from -2 to 2 in equal steps, in another order for each image."""
    fill = Filler(subject.dtype, subject.settings.seed, "apart", seed, batch, queries, classes)
    steps = torch.linspace(-2, 2, queries * classes, dtype=torch.float64)
    images = [steps[torch.randperm(len(steps), generator=fill.generator)] for _ in range(batch)]
    return torch.stack(images).view(batch, queries, classes)


def favouring_one_query(logits: Tensor) -> Tensor:
    """The same numbers; of each image the two best ones belong to one query."""
    changed = logits.clone()
    for image in changed.flatten(1):
        best, second = image.topk(2).indices.tolist()
        classes = logits.shape[-1]
        beside = best // classes * classes + (best + 1) % classes
        image[[beside, second]] = image[[second, beside]]
    return changed


def boxes_of(subject: Subject, batch: int, queries: int, seed: str) -> Tensor:
    """Centres and sizes of boxes; none is square, and no two of an image are alike."""
    fill = Filler(subject.dtype, subject.settings.seed, "boxes", seed)
    centre, size = fill.uniform(0.2, 0.8, batch, queries, 2), fill.uniform(0.05, 0.4, batch, queries, 2)
    return torch.cat((centre, size), -1)


def kinds(subject: Subject) -> list[str]:
    """Of the two kinds of scores those that the target has."""
    only = subject.variant("postprocess_scores")
    return ["sigmoid", "softmax"] if only == "any" else [only]


def of_each_kind(subject: Subject) -> Iterator[Case]:
    for scores in kinds(subject):
        logits = apart(subject, 2, QUERIES, CLASSES, scores)
        yield detections_case(subject, logits, f"of two images, {scores}", scores=scores)


def best_pairs(subject: Subject) -> Iterator[Case]:
    """A query with several of the best scores, queries with none of them, in every image others."""
    for queries, classes in ((QUERIES, CLASSES), (4, 5), (7, 2)):
        logits = favouring_one_query(apart(subject, 2, queries, classes, "best"))
        yield detections_case(subject, logits, f"{queries} queries and {classes} classes", num_select=queries)
    logits = apart(subject, 2, QUERIES, CLASSES, "many")
    yield detections_case(subject, logits, "most pairs", num_select=3 * QUERIES)
    yield detections_case(subject, logits, "one", num_select=1)


def as_in_a_detector(subject: Subject) -> Iterator[Case]:
    """900 queries, 80 classes and 300 detections: more pairs than 16 bits can number, more detections than 100."""
    fill = Filler(subject.dtype, subject.settings.seed, "detector")
    yield detections_case(subject, 2 * fill.normal(2, 900, 80) - 4, "as in a detector", num_select=300)


def large(subject: Subject) -> Iterator[Case]:
    """As published, with 220 detections of one class; 1,203 classes, 67 images, 2,100 queries of one class."""
    for scores in kinds(subject):
        logits = apart(subject, 2, 900, 92, scores)
        logits[:, 5:225, 37] = torch.linspace(3, 6, 220, dtype=torch.float64)
        note = f"220 detections of a class, {scores}"
        yield detections_case(subject, logits, note, scores=scores, num_select=300)
        logits = apart(subject, 67, 5, 3, scores)
        yield detections_case(
            subject, logits, f"67 images, {scores}", scores=scores, num_select=5, sizes=((480, 640), (37, 500)) * 34
        )
        logits = apart(subject, 1, 9, 1203, scores)
        yield detections_case(subject, logits, f"1203 classes, {scores}", scores=scores, num_select=100)
        logits = apart(subject, 1, 2100, 2, scores)
        yield detections_case(subject, logits, f"2100 queries, {scores}", scores=scores, num_select=1030)


def fewer_pairs(subject: Subject) -> Iterator[Case]:
    """Fewer pairs than detections asked for, in a detector of one or two classes."""
    if subject.variant("num_select") == "queries":
        raise NotProvided("the target always returns as many detections as there are queries")
    for classes in (1, 2):
        yield detections_case(subject, apart(subject, 2, 3, classes), f"{classes} classes", num_select=300)


def equal_scores(subject: Subject) -> Iterator[Case]:
    """Scores of a few values, so that the last ones taken are among several equal ones."""
    logits = apart(subject, 2, QUERIES, CLASSES).round()
    yield detections_case(subject, logits, "equal scores", num_select=QUERIES)
    yield detections_case(subject, torch.zeros(2, QUERIES, CLASSES), "all scores equal", num_select=QUERIES)


def one_a_query(subject: Subject) -> Iterator[Case]:
    """Softmax: queries whose best class is the last, no object, and others."""
    for classes in (4, 2):
        logits = apart(subject, 2, QUERIES, classes, "softmax")
        logits[:, 1::2, -1] = 2.5
        logits[:, ::2, -1] = -1.75
        note = f"{classes - 1} classes and none"
        yield detections_case(subject, logits, note, scores="softmax", num_select=QUERIES)
        if subject.dtype not in HALF:  # there, logits beyond 128 are whole numbers, and many are equal
            yield detections_case(subject, logits + 128, f"{note}, large", scores="softmax", num_select=QUERIES)


def beyond_the_image(subject: Subject) -> Iterator[Case]:
    """Boxes across every border."""
    for scores in kinds(subject):
        boxes = boxes_of(subject, 2, QUERIES, "beyond")
        boxes[..., 2:] += 1.25
        yield detections_case(
            subject, apart(subject, 2, QUERIES, CLASSES), f"beyond the image, {scores}", scores=scores, boxes=boxes
        )


def one_place(subject: Subject) -> Iterator[Case]:
    """All queries of an image have nearly the same box, and their best score for the same class."""
    for scores in kinds(subject):
        boxes = boxes_of(subject, 2, 1, "one place").repeat(1, QUERIES, 1)
        boxes[..., 2] += torch.linspace(0, 0.05, QUERIES, dtype=torch.float64)
        logits = apart(subject, 2, QUERIES, CLASSES)
        logits[..., 1] = torch.linspace(2.5, 4, QUERIES, dtype=torch.float64)
        yield detections_case(subject, logits, f"one place, {scores}", scores=scores, boxes=boxes)


def three_sizes(subject: Subject) -> Iterator[Case]:
    for scores in kinds(subject):
        logits = apart(subject, 3, QUERIES, CLASSES, "sizes")
        yield detections_case(subject, logits, f"three sizes, {scores}", scores=scores, sizes=SIZES)
        for what, sizes in (("as high", ((480, 640), (480, 533))), ("as wide", ((480, 640), (333, 640)))):
            yield detections_case(subject, logits[:2], f"one {what} as the other, {scores}", scores=scores, sizes=sizes)
        yield detections_case(subject, logits[:1], f"one image, {scores}", scores=scores, sizes=SIZES[1:2])


def representative_postprocess(subject: Subject) -> list[Case]:
    return list(of_each_kind(subject))


def other_numbers(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Another call of the same shapes, whose scores are apart as well."""
    return {
        "pred_logits": inputs["pred_logits"].flip(0, 1),
        "pred_boxes": 0.5 * inputs["pred_boxes"].flip(0),
        "sizes": inputs["sizes"].flip(1),
    }


@composite
def _drawn(draw: st.DrawFn, subject: Subject) -> Case:
    batch, queries, classes = draw(st.integers(1, 3)), draw(st.integers(1, 7)), draw(st.integers(2, 5))
    fill = Filler(subject.dtype, subject.settings.seed, "drawn", draw(SEEDS))
    logits = draw(st.sampled_from((0.25, 2.0, 6.0))) * fill.normal(batch, queries, classes)
    size = st.tuples(st.integers(1, 1400), st.integers(1, 1400))
    settings: dict[str, Any] = {"num_select": draw(st.integers(1, queries * classes))}
    settings["sizes"] = tuple(draw(size) for _ in range(batch))
    return detections_case(subject, logits, "drawn", **settings).laid_out(draw(st.sampled_from(DENSE)))


def drawn(subject: Subject) -> st.SearchStrategy[Case]:
    return _drawn(subject)
