"""Contrastive denoising (chapter 13): layout and labels. Boxes, and the mask and calls, are in files of their own."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from detr_conformance.harness.block import seeded
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect, require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.denoising.cases import (
    APART,
    CLASSES,
    QUIET,
    denoising_case,
    drawn,
    large,
    noisy,
    published_contrastive_denoising,
    quiet,
    representative_contrastive_denoising,
)
from detr_conformance.topics.denoising.checks.queries import (
    FULL,
    KINDS,
    NEGATIVE,
    POSITIVE,
    groups_in,
    groups_of,
    independent,
    mask_of,
    queries,
    rate,
    returned,
    right_mask,
    unchanged_labels,
    uncorrelated,
    unmoved,
)

OPERATION = "contrastive_denoising"


# -- layout ---------------------------------------------------------------------------------------------------


def with_nothing(subject: Subject) -> list[Case]:
    return [*representative_contrastive_denoising(subject), denoising_case(subject, (0, 0), "no boxes")]


@covers("CDN-1", cases=with_nothing)
def test_output_form(subject: Subject, case: Case) -> None:
    with seeded(subject):
        output = returned(subject, case)
    images, embed = len(case["target_counts"]), case["label_embedding"].shape[1]
    expect("content" in output, "the output has no content", where="content")
    size = groups_in(case, output["content"]) * 2 * int(case["target_counts"].max())
    total = size + int(case.options["num_queries"])
    for name, shape, dtype in (
        ("content", (images, size, embed), subject.torch_dtype),
        ("references", (images, size, 4), subject.torch_dtype),
        ("attn_mask", (total, total), torch.bool),
    ):
        expect(name in output, f"the output has no {name}", where=name)
        got, device = output[name], torch.device(subject.device).type
        expect(tuple(got.shape) == shape, f"{name} is {tuple(got.shape)}, expected {shape}", where=f"{name}.shape")
        expect(got.dtype == dtype, f"{name} has dtype {got.dtype}, expected {dtype}", where=f"{name}.dtype")
        expect(got.device.type == device, f"{name} is on {got.device}, expected {device}", where=f"{name}.device")


def several_numbers(subject: Subject) -> Iterator[Case]:
    """Divisible or not, above and below 50, and never the quotient by the sum, the mean or the first of the counts."""
    for number, counts in ((7, (1, 3)), (100, (2, 7, 0)), (30, (2, 4)), (99, (1, 5)), (4, (1, 4, 2)), (3, (1, 4))):
        yield denoising_case(subject, counts, f"denoising_number {number}", denoising_number=number)


@covers("CDN-2", cases=several_numbers)
def test_number_of_groups(subject: Subject, case: Case) -> None:
    largest = int(case["target_counts"].max())
    with seeded(subject):
        got = returned(subject, case)["content"].shape[1]
    want = groups_of(case) * 2 * largest
    expect(
        got == want,
        f"{got} denoising queries, expected {want} = {groups_of(case)} groups x 2 x {largest} boxes",
        where="content.shape",
        expected=str(want),
        got=str(got),
    )


@covers("CDN-3", cases=lambda subject: [noisy(subject, (3, 2), box_noise_scale=APART, denoising_number=12)])
def test_positives_before_negatives(subject: Subject, case: Case) -> None:
    """By the mean move of a query's corners, which nothing but its kind decides."""
    seen = queries(subject, case)
    mean = seen.moves.abs().mean(-1)
    for kind, low, high in ((POSITIVE, 0.0, 1.0), (NEGATIVE, 1.0, 2.0)):
        slots = mean[:, :, kind].masked_fill(~seen.taken[:, None], (low + high) / 2)
        slack = seen.slack / seen.units.amin(-1).clamp(min=1e-3)[:, None]
        wrong = ((slots < low - slack) | (slots > high + slack)).nonzero().tolist()
        expect(
            not wrong,
            f"{len(wrong)} slots for {KINDS[kind]} queries hold another kind, among them that of image, group and box "
            f"{wrong[:1]}",
            where="references",
        )


@covers("CDN-4", cases=quiet)
def test_own_boxes(subject: Subject, case: Case) -> None:
    seen = queries(subject, case)
    unchanged_labels(subject, seen)
    unmoved(subject, seen)


@covers("CDN-5", cases=representative_contrastive_denoising)
def test_empty_slots(subject: Subject, case: Case) -> None:
    seen = queries(subject, case)
    for name, tensor in (("content", seen.content), ("references", seen.references)):
        empty = tensor[~seen.everywhere]
        subject.compare_exactly(f"{name} of empty slots", empty, torch.zeros_like(empty))


def some_without(subject: Subject) -> Iterator[Case]:
    for counts in ((0, 2, 1), (2, 0, 1), (1, 2, 0), (0, 0, 3)):
        yield denoising_case(subject, counts, f"boxes {counts}", denoising_number=6, **QUIET)


@covers("CDN-6", cases=some_without)
def test_an_image_without_boxes(subject: Subject, case: Case) -> None:
    seen = queries(subject, case)
    empty = seen.content[case["target_counts"] == 0]
    subject.compare_exactly("content of an image without boxes", empty, torch.zeros_like(empty))
    unchanged_labels(subject, seen)
    unmoved(subject, seen)


@covers("CDN-7", cases=lambda s: [denoising_case(s, counts, f"boxes {counts}") for counts in ((0, 0), (0,))])
def test_no_boxes_at_all(subject: Subject, case: Case) -> None:
    hidden = int(mask_of(subject, case).sum())  # and no queries, which every call is held to
    expect(not hidden, f"the mask hides {hidden} of the matching queries from each other", where="attn_mask")


def crowded(subject: Subject) -> Iterator[Case]:
    yield denoising_case(subject, (12, 3), "more boxes than queries", denoising_number=4, num_queries=5, **QUIET)


@covers("CDN-37", cases=large, once=True)
def test_many_of_each(subject: Subject, case: Case) -> None:
    seen = queries(subject, case)
    unchanged_labels(subject, seen)
    unmoved(subject, seen)
    right_mask(subject, case)


@covers("CDN-37", cases=published_contrastive_denoising, once=True)
def test_denoising_of_published_size(subject: Subject, case: Case) -> None:
    seen = queries(subject, case)
    unchanged_labels(subject, seen)
    unmoved(subject, seen)
    right_mask(subject, case)


@covers("CDN-8", cases=crowded)
def test_more_boxes_than_queries(subject: Subject, case: Case) -> None:
    size = 2 * int(case["target_counts"].max())
    with seeded(subject):
        got = returned(subject, case)["content"].shape[1]
    expect(got == size, f"{got} denoising queries, expected {size}: one group of all boxes", where="content.shape")
    seen = queries(subject, case)
    unchanged_labels(subject, seen)
    unmoved(subject, seen)


# -- labels ---------------------------------------------------------------------------------------------------


@covers("CDN-9", cases=drawn)
def test_content_is_a_row(subject: Subject, case: Case) -> None:
    seen = queries(subject, case)
    strange = int((seen.noised_labels[seen.everywhere] < 0).sum())
    expect(
        not strange,
        f"the content of {strange} of {int(seen.everywhere.sum())} queries is no row of label_embedding",
        where="content",
    )


def label_noise(subject: Subject) -> Iterator[Case]:
    for ratio in (0.5, 1.0, 0.2):
        yield noisy(subject, note=f"of labels, ratio {ratio}", label_noise_ratio=ratio)


@covers("CDN-10", cases=label_noise)
def test_how_often_a_label_is_drawn(subject: Subject, case: Case) -> None:
    """A label that is drawn anew remains what it was in one case out of CLASSES."""
    seen = queries(subject, case)
    changed = seen.noised_labels != seen.labels[:, None, None]
    share = float(case.options["label_noise_ratio"]) / 2 * (1 - 1 / CLASSES)
    for kind in (POSITIVE, NEGATIVE):
        rate(f"changed labels of {KINDS[kind]} queries", changed[:, :, kind], share)


def unequal_labels(subject: Subject) -> Iterator[Case]:
    """Every class, and one of them more often than the others."""
    labels = (1, 3, 1, 0, 1, 2, 1, 1)
    yield noisy(subject, (4, 4), "of unequal labels", labels=labels, label_noise_ratio=1.0, denoising_number=2000)


@covers("CDN-11", cases=unequal_labels)
def test_every_class_is_as_likely(subject: Subject, case: Case) -> None:
    seen = queries(subject, case)
    for true in range(CLASSES):
        of_class = (seen.labels == true)[:, None, None].expand(seen.noised_labels.shape)
        require(of_class.any(), "boxes of every class")
        for drawn_class in range(CLASSES):
            share = 0.5 / CLASSES + (0.5 if drawn_class == true else 0.0)
            hits = seen.noised_labels[of_class] == drawn_class
            rate(f"class {drawn_class} where it was {true}", hits, share)


def few_labels(subject: Subject) -> Iterator[Case]:
    yield noisy(subject, (4, 4), "of one label", labels=(1,) * 8, label_noise_ratio=1.0, denoising_number=1000)


@covers("CDN-11", cases=few_labels)
def test_classes_that_no_box_has_are_as_likely(subject: Subject, case: Case) -> None:
    noised = queries(subject, case).noised_labels
    for drawn_class in range(CLASSES):
        share = 0.5 / CLASSES + (0.5 if drawn_class == 1 else 0.0)
        rate(f"class {drawn_class} where all were 1", noised == drawn_class, share)


def thousands_of_labels(subject: Subject) -> Iterator[Case]:
    labels = (7, 300, 600, 1202)
    yield noisy(subject, (4,), "of 1203", classes=1203, labels=labels, label_noise_ratio=1.0, denoising_number=2000)


@covers("CDN-11", cases=thousands_of_labels, once=True)
def test_every_class_of_many_is_as_likely(subject: Subject, case: Case) -> None:
    """By a hundred at a time: a label that is kept in eight bits never comes to the later ones."""
    seen = queries(subject, case)
    classes = len(case["label_embedding"])
    for first in range(0, classes, 100):
        last = min(first + 100, classes)
        for true in case["target_labels"].tolist():
            drawn = seen.noised_labels[(seen.labels == true)[:, None, None].expand(seen.noised_labels.shape)]
            share = 0.5 * (last - first) / classes + (0.5 if first <= true < last else 0.0)
            rate(f"classes {first} to {last - 1} where it was {true}", (drawn >= first) & (drawn < last), share)


def few_groups(subject: Subject) -> Iterator[Case]:
    yield noisy(subject, (130, 130), "of few groups", label_noise_ratio=1.0, denoising_number=390)


def many_slots(subject: Subject) -> Iterator[Case]:
    yield noisy(subject, (300,) * 8, "of many slots", label_noise_ratio=1.0, denoising_number=600)


@covers("CDN-10", cases=many_slots, once=True)
def test_every_slot_has_label_noise(subject: Subject, case: Case) -> None:
    """By thirty at a time, the last ones too."""
    seen = queries(subject, case)
    changed = seen.noised_labels != seen.labels[:, None, None]
    for slots in changed.split(30, -1):
        rate("changed labels of thirty slots", slots, 0.5 * (1 - 1 / CLASSES))


@covers("CDN-10", cases=few_groups)
def test_every_group_has_label_noise(subject: Subject, case: Case) -> None:
    seen = queries(subject, case)
    changed = seen.noised_labels != seen.labels[:, None, None]
    for group in range(changed.shape[1]):
        for kind in (POSITIVE, NEGATIVE):
            what = f"changed labels of {KINDS[kind]} queries of group {group}"
            rate(what, changed[:, group, kind], 0.5 * (1 - 1 / CLASSES))


@covers("CDN-12", cases=lambda subject: [noisy(subject, note="of labels", label_noise_ratio=1.0)], dtypes=FULL)
def test_labels_are_drawn_one_by_one(subject: Subject, case: Case) -> None:
    seen = queries(subject, case)
    changed = seen.noised_labels != seen.labels[:, None, None]
    independent("changes of label", changed)
    independent("labels", seen.noised_labels - seen.noised_labels.double().mean(1, keepdim=True))
    far = (seen.moves.abs() - seen.moves.abs().nanmean((0, 1, 3), keepdim=True)).mean(-1)
    uncorrelated("changes of label and moves of corners", changed, far)


@covers("CDN-13", cases=lambda subject: [noisy(subject, (3, 1), note="without label noise", label_noise_ratio=0.0)])
def test_without_label_noise(subject: Subject, case: Case) -> None:
    unchanged_labels(subject, queries(subject, case))
