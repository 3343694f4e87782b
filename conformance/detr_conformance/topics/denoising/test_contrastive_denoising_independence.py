"""Random numbers that have nothing to do with each other (chapter 13): in samples of a hundred thousand queries, for
any two places at any distance, and with a known rate of false alarms."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from detr_conformance.harness.block import seeded
from detr_conformance.harness.block_case import settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.denoising.cases import APART, CLASSES, noisy
from detr_conformance.topics.denoising.checks.independence import (
    GROUP,
    any_distance,
    any_two,
    means,
    of_labels,
    of_moves,
    of_signs,
    patterns,
    three_groups,
    turns,
    two_calls,
    unsuspicious,
)
from detr_conformance.topics.denoising.checks.queries import (
    FULL,
    KINDS,
    NEGATIVE,
    POSITIVE,
    Queries,
    arranged,
    queries,
    rate,
    returned,
    uniform,
)

OPERATION = "contrastive_denoising"
covers_once = partial(covers, dtypes=FULL, once=True)
Cases = Iterator[Case]


def in_a_row(subject: Subject) -> Cases:
    """64 images, 20 groups, 40 slots."""
    yield noisy(subject, (40,) * 64, "of 40 slots", denoising_number=800, box_noise_scale=APART)


def many_images(subject: Subject) -> Cases:
    yield noisy(subject, (40,) * 200, "of many images", denoising_number=800, box_noise_scale=APART)


def many_groups(subject: Subject) -> Cases:
    """More groups than 8 bits number, of few boxes."""
    yield noisy(subject, (4,) * 30, "of many groups", denoising_number=1040, box_noise_scale=APART)


def ratio_of(case: Case) -> float:
    return float(settings_of(case).get("label_noise_ratio", 0.5))


# -- labels ---------------------------------------------------------------------------------------------------


@covers_once("CDN-10", cases=many_images)
def test_the_share_of_drawn_labels(subject: Subject, case: Case) -> None:
    """To one label in two hundred."""
    seen = queries(subject, case)
    changed = seen.noised_labels != seen.labels[:, None, None]
    share = ratio_of(case) / 2 * (1 - 1 / CLASSES)
    rate("changed labels", changed, share)
    for true in range(CLASSES):
        of_class = (seen.labels == true)[:, None, None].expand(changed.shape)
        rate(f"changed labels of class {true}", changed[of_class], share)
        for drawn in range(CLASSES):
            if drawn != true:
                hits = seen.noised_labels[of_class] == drawn
                rate(f"class {drawn} where it was {true}", hits, ratio_of(case) / 2 / CLASSES)


@covers_once("CDN-10", cases=in_a_row)
def test_labels_are_drawn_as_often_everywhere(subject: Subject, case: Case) -> None:
    unsuspicious("labels", means(of_labels(queries(subject, case), ratio_of(case))))


@covers_once("CDN-12", cases=in_a_row)
def test_labels_of_any_two_places(subject: Subject, case: Case) -> None:
    seen = queries(subject, case)
    labels = of_labels(seen, ratio_of(case))
    unsuspicious("labels", any_two(labels.beside(of_signs(seen))))
    unsuspicious("labels", three_groups(labels))
    unsuspicious("labels", any_distance(labels))


@covers_once("CDN-12", cases=many_groups)
def test_labels_of_many_groups(subject: Subject, case: Case) -> None:
    labels = of_labels(queries(subject, case), ratio_of(case))
    unsuspicious("labels", any_two(labels, (GROUP,)))


# -- boxes ----------------------------------------------------------------------------------------------------


@covers_once("CDN-16", cases=in_a_row)
def test_patterns_of_signs(subject: Subject, case: Case) -> None:
    """All 16 patterns of a query, and all 256 of the positive and the negative of a box."""
    signs = of_signs(queries(subject, case))
    unsuspicious("signs", means(signs))
    both = signs.numbers.movedim(2, -2).flatten(-2).flatten(0, 2)  # (image and group and slot, kind and coordinate)
    unsuspicious("signs", patterns(both, "a positive's four coordinates and its negative's"))


@covers_once("CDN-17", cases=many_images)
def test_moves_are_uniform_in_a_large_sample(subject: Subject, case: Case) -> None:
    moves = queries(subject, case).moves.abs()
    for kind in (POSITIVE, NEGATIVE):
        what = f"moves of {KINDS[kind]} corner coordinate"
        for coordinate in range(4):
            uniform(f"{what} {coordinate}", moves[:, :, kind, :, coordinate], float(kind), kind + 1.0)


@covers_once("CDN-18", cases=in_a_row)
def test_moves_of_any_two_places(subject: Subject, case: Case) -> None:
    """Signs and lengths, of any two coordinates of a query, kinds, slots, groups, images; of any three groups."""
    seen = queries(subject, case)
    moves = of_moves(seen)
    unsuspicious("moves", any_two(moves))
    unsuspicious("moves", turns(moves))
    unsuspicious("moves", any_distance(moves))
    unsuspicious("moves", three_groups(of_signs(seen)))


@covers_once("CDN-18", cases=many_groups)
def test_moves_of_many_groups(subject: Subject, case: Case) -> None:
    unsuspicious("moves", any_two(of_signs(queries(subject, case)), (GROUP,)))


# -- calls ----------------------------------------------------------------------------------------------------


def shared_by_calls(subject: Subject) -> Cases:
    yield noisy(subject, (20,) * 8, "of two calls", denoising_number=400, box_noise_scale=APART)


@covers_once("CDN-30", cases=shared_by_calls)
def test_no_place_of_two_calls_is_alike(subject: Subject, case: Case) -> None:
    """Nor turned round; and a third call is no product of the two before it."""
    calls: list[Queries] = []
    with seeded(subject):
        for _ in range(3):
            calls.append(arranged(subject, case, returned(subject, case)))
    every = [of_labels(seen, ratio_of(case)).beside(of_moves(seen)) for seen in calls]
    for one in range(3):
        for other in range(one):
            unsuspicious("two calls", two_calls(every[other], every[one]))
    unsuspicious("three calls", patterns(_signs_of_three(calls), "three calls"))


def _signs_of_three(calls: list[Queries]) -> Tensor:
    """(sample, call)."""
    return torch.stack([of_signs(seen).numbers.flatten() for seen in calls], -1)
