"""Which cells become queries (chapter 11, SEL-30 to SEL-40)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from detr_conformance.harness.block import agrees, outputs, parts, raises, run
from detr_conformance.harness.block_case import settings_of, with_settings
from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import Mismatch, expect, require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.positions.cases import with_option
from detr_conformance.topics.queries.cases.selection import clear_choices, drawn_choices, selection_case, unlike_scores

OPERATION = "select_queries"


def scores_of(case: Case) -> Tensor:
    """What cells are ranked by, (batch, cell)."""
    logits = case["class_logits"]
    return logits.amax(-1) if settings_of(case).get("score", "max") == "max" else logits[..., 0]


def selected(subject: Subject, case: Case) -> Tensor:
    """The indices that the target returns, in range."""
    batch, cells, _ = case["class_logits"].shape
    said = outputs(subject, case)
    if not isinstance(said.get("indices"), Tensor):
        raise Mismatch("the output has no tensor of indices", where="indices", expected="a tensor")
    indices = said["indices"].detach().cpu()
    shape = (batch, settings_of(case)["num_queries"])
    expect(indices.shape == shape, f"indices have shape {tuple(indices.shape)}, expected {shape}", where="indices")
    inside = bool(((indices >= 0) & (indices < cells)).all())
    expect(inside, f"indices run from {indices.min()} to {indices.max()}, cells from 0 to {cells - 1}", where="indices")
    return indices.long()


def selects_the_best(subject: Subject, case: Case) -> Tensor:
    """The scores of the selected cells are the largest of each image, in falling order. Returns the indices."""
    indices, scores = selected(subject, case), scores_of(case)
    wanted = scores.sort(-1, descending=True).values[:, : indices.shape[1]]
    subject.compare_exactly("scores of the selected cells", scores.gather(1, indices), wanted.double())
    return indices


def rows_agree(subject: Subject, case: Case, indices: Tensor) -> None:
    """Proposals and memory are the rows that the indices name."""
    said = outputs(subject, case)
    for name in ("proposals", "memory"):
        rows = torch.stack([one[index] for one, index in zip(case[name], indices, strict=True)])
        subject.compare_exactly(name, said[name], rows.double())


# -- scores ---------------------------------------------------------------------------------------------------


def maxima(subject: Subject) -> Iterator[Case]:
    """Cells whose largest logit is not the largest sum, nor in channel 0; and a single class."""
    logits = unlike_scores(subject, 2, 13, 4)
    sums = logits.sum(-1).argsort(-1)
    require((sums != logits.amax(-1).argsort(-1)).any(), "sums that rank otherwise than maxima")
    yield selection_case(subject, logits, "the largest logit", num_queries=5)
    yield selection_case(subject, logits[..., :1], "a single class", num_queries=4)


@covers("SEL-30", cases=maxima)
def test_maximum_over_classes(subject: Subject, case: Case) -> None:
    selects_the_best(subject, case)


def firsts(subject: Subject) -> Iterator[Case]:
    logits = unlike_scores(subject, 3, 11, 5)
    require((logits[..., 0].argmax(-1) != logits.amax(-1).argmax(-1)).any(), "maxima elsewhere than in channel 0")
    yield selection_case(subject, logits, "channel 0", num_queries=4, score="first")


@covers("SEL-31", cases=firsts)
def test_first_channel(subject: Subject, case: Case) -> None:
    selects_the_best(subject, case)


def saturated(subject: Subject) -> Iterator[Case]:
    """Logits of 20 and more, and of -100 and less, whose sigmoids are 1 and 0."""
    yield from clear_choices(subject)
    logits = unlike_scores(subject, 2, 9, 3)
    yield selection_case(subject, logits + torch.where(logits > -1, 20, 0), "large logits", num_queries=6)
    yield selection_case(subject, logits - 120, "small logits", num_queries=6)
    step = max(torch.finfo(subject.torch_dtype).eps, torch.finfo(torch.float32).eps)
    yield selection_case(subject, 1 + 4 * step * logits.amax(-1, keepdim=True), "a few roundings apart", num_queries=6)


def many_cells(subject: Subject) -> Iterator[Case]:
    """More cells than a block has threads, than half precision has whole numbers, and as many as a photograph has."""
    for batch, cells, classes, queries in (
        (2, 2700, 2, 301),
        (1, 5003, 91, 300),
        (1, 9001, 1, 4500),
        (2, 22223, 3, 900),
    ):
        logits = unlike_scores(subject, batch, cells, classes)
        yield selection_case(subject, logits, f"{queries} of {cells} cells", num_queries=queries, embed=1)


@covers("SEL-32", cases=lambda subject: [*saturated(subject), *many_cells(subject)])
def test_best_first(subject: Subject, case: Case) -> None:
    selects_the_best(subject, case)


@covers("SEL-32", cases=drawn_choices, share=0.5)
def test_best_first_of_any_number(subject: Subject, case: Case) -> None:
    selects_the_best(subject, case)


# -- rows -----------------------------------------------------------------------------------------------------


def with_infinite_proposals(subject: Subject) -> Iterator[Case]:
    for case in clear_choices(subject):
        fill = Filler(subject.dtype, subject.settings.seed, "invalid", case.note)
        invalid = fill.chance(0.4, *case["proposals"].shape[:2], 1)
        proposals = case["proposals"].masked_fill(invalid, torch.inf)
        yield case
        yield case.having(proposals=proposals, memory=case["memory"].masked_fill(invalid, 0))
        yield case.having(proposals=proposals, memory=case["memory"].masked_fill(invalid, torch.nan))


@covers("SEL-33", cases=with_infinite_proposals)
def test_rows_of_the_indices(subject: Subject, case: Case) -> None:
    rows_agree(subject, case, selected(subject, case))


def unlike_images(subject: Subject) -> Iterator[Case]:
    """One image has larger scores than the other throughout."""
    logits = unlike_scores(subject, 3, 8, 3)
    logits[1] += 8
    yield selection_case(subject, logits, "one image above the others", num_queries=5)


@covers("SEL-34", cases=lambda subject: [*unlike_images(subject), *clear_choices(subject)])
def test_every_image_by_itself(subject: Subject, case: Case) -> None:
    """An image has the indices that it has alone; the rows are its own."""
    indices = selected(subject, case)
    for image in range(len(indices)):
        own = {name: case[name][image : image + 1] for name in ("class_logits", "proposals", "memory")}
        alone = with_settings(subject, case.having(**own))
        subject.shapes = alone.shapes
        subject.compare_exactly(f"indices of image {image} alone", selected(subject, alone), indices[image : image + 1])
        rows_agree(subject, alone, indices[image : image + 1])
    subject.shapes = case.shapes
    rows_agree(subject, case, indices)


def tied(subject: Subject) -> Iterator[Case]:
    """Few different scores, all equal ones, and the one score of all invalid cells."""
    fill = Filler(subject.dtype, subject.settings.seed, "ties")
    for note, logits, num_queries in (
        ("three scores", fill.integers(0, 2, 2, 12, 2), 7),
        ("one score", torch.zeros(2, 6, 3), 4),
        ("invalid cells", unlike_scores(subject, 2, 12, 3).index_fill(1, torch.arange(3, 9), -4.5), 10),
    ):
        yield selection_case(subject, logits, note, num_queries=num_queries)


@covers("SEL-35", cases=tied)
def test_ties(subject: Subject, case: Case) -> None:
    indices = selects_the_best(subject, case)
    for image, own in enumerate(indices.tolist()):
        expect(len(set(own)) == len(own), f"image {image} has a cell twice: {own}", where="indices", got=str(own))
    rows_agree(subject, case, indices)


def all_cells(subject: Subject) -> Iterator[Case]:
    """As many queries as cells, some of them invalid, with the best or with the worst of scores."""
    logits = unlike_scores(subject, 2, 7, 3)
    case = selection_case(subject, logits, "all cells", num_queries=7)
    best = logits.amax(-1, keepdim=True) > 0.9
    yield case.having(proposals=case["proposals"].masked_fill(best, torch.inf))
    worst = (logits.amax(-1, keepdim=True) < 0.1).expand_as(logits)
    yield case.having(class_logits=case["class_logits"].masked_fill(worst, -torch.inf))


@covers("SEL-36", cases=all_cells)
def test_every_cell_takes_part(subject: Subject, case: Case) -> None:
    indices = selects_the_best(subject, case)
    every = torch.arange(indices.shape[1]).expand_as(indices)
    subject.compare_exactly("all indices, sorted", indices.sort(-1).values, every)
    rows_agree(subject, case, indices)


@covers("SEL-37", cases=clear_choices)
def test_form_of_the_indices(subject: Subject, case: Case) -> None:
    selects_the_best(subject, case)
    dtype = outputs(subject, case)["indices"].dtype
    expect(dtype == torch.int64, f"indices are {dtype}", where="indices", expected="torch.int64", got=str(dtype))


# -- errors and gradients -------------------------------------------------------------------------------------


@covers("SEL-38", cases=clear_choices, once=True)
def test_too_few_cells(subject: Subject, case: Case) -> None:
    cells = case["class_logits"].shape[1]
    for num_queries in (cells + 1, cells + 20):
        raises(
            subject, with_option(case, "num_queries", num_queries), f"there are {cells} cells for {num_queries} queries"
        )


@covers("SEL-39", cases=lambda subject: [*unlike_images(subject), *clear_choices(subject)])
def test_damage_stays_in_its_image(subject: Subject, case: Case) -> None:
    """One score of an image is NaN, then all are."""
    right = selected(subject, case)
    for cells in (slice(6, 7), slice(None)):
        logits = case["class_logits"].clone()
        logits[1, cells] = torch.nan
        indices = selected(subject, case.having(class_logits=logits))
        for image in range(len(right)):
            if image != 1:
                subject.compare_exactly(f"indices of image {image}", indices[image], right[image])


@covers("SEL-40", cases=with_infinite_proposals, feature="backward", plain=agrees)
def test_gradients_go_where_rows_came_from(subject: Subject, case: Case) -> None:
    indices = selected(subject, case)
    gradients = run(subject, case).gradients
    for name, incoming in parts(case, case["grad_output"]).items():
        expected = torch.zeros_like(case[name])
        for image, own in enumerate(indices):
            expected[image, own] = incoming[image]
        subject.compare_exactly(f"grad_{name}", subject.gradient(name, gradients), expected)
    scores = gradients.get("class_logits")
    if scores is not None:
        subject.compare_exactly("grad_class_logits", scores, torch.zeros_like(case["class_logits"]))
