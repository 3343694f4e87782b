"""The boxes of contrastive denoising (chapter 13, CDN-14 to CDN-24)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect, require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.denoising.cases import (
    APART,
    QUIET,
    degenerate_boxes,
    denoising_case,
    noisy,
    quiet,
)
from detr_conformance.topics.denoising.checks.queries import (
    FULL,
    KINDS,
    NEGATIVE,
    POSITIVE,
    corners_of,
    independent,
    queries,
    rate,
    round_off,
    uncorrelated,
    uniform,
    unmoved,
    within,
)
from detr_conformance.topics.positions.cases import with_option

OPERATION = "contrastive_denoising"


def positives(subject: Subject) -> Iterator[Case]:
    for scale in (APART, 0.15, 1.0):
        yield noisy(subject, (2, 4), note=f"of boxes, scale {scale}", denoising_number=200, box_noise_scale=scale)


def small(subject: Subject) -> Iterator[Case]:
    """Sides of one or two hundredths of the image, each with its own."""
    yield from positives(subject)
    boxes = torch.tensor([[0.5, 0.4, 0.01, 0.02], [0.3, 0.6, 0.02, 0.01]], dtype=torch.float64)
    yield noisy(subject, (2,), "of small boxes", boxes=boxes, denoising_number=60, box_noise_scale=APART)


@covers("CDN-14", cases=small)
def test_positives_stay_near(subject: Subject, case: Case) -> None:
    within(queries(subject, case), POSITIVE, 0.0, 1.0)


@covers("CDN-15", cases=lambda subject: [*positives(subject)][:2])
def test_negatives_leave(subject: Subject, case: Case) -> None:
    within(queries(subject, case), NEGATIVE, 1.0, 2.0)


def sampled(subject: Subject) -> Iterator[Case]:
    yield noisy(subject, note=f"of boxes, scale {APART}", box_noise_scale=APART)


@covers("CDN-16", cases=sampled, dtypes=FULL)
def test_signs(subject: Subject, case: Case) -> None:
    seen = queries(subject, case)
    outward = seen.moves > 0
    for kind in (POSITIVE, NEGATIVE):
        for coordinate in range(4):
            rate(f"{KINDS[kind]} corner coordinates {coordinate} moved up", outward[:, :, kind, :, coordinate], 0.5)
    for one in range(4):
        for other in range(one):
            uncorrelated(f"signs of corner coordinates {other} and {one}", outward[..., one], outward[..., other])


@covers("CDN-17", cases=sampled, dtypes=FULL)
def test_moves_are_uniform(subject: Subject, case: Case) -> None:
    moves = queries(subject, case).moves.abs()
    for coordinate in range(4):
        uniform(f"moves of positive corner coordinate {coordinate}", moves[:, :, POSITIVE, :, coordinate], 0.0, 1.0)
        uniform(f"moves of negative corner coordinate {coordinate}", moves[:, :, NEGATIVE, :, coordinate], 1.0, 2.0)


@covers("CDN-17", cases=lambda subject: [noisy(subject, note="of boxes, scale 2", box_noise_scale=2.0)])
def test_any_scale(subject: Subject, case: Case) -> None:
    """Both corners of an axis move inwards in a quarter of all cases, and in half of these by a side in all."""
    seen = queries(subject, case)
    crossed = seen.references[:, :, POSITIVE, :, 2:] < math.log(seen.eps) + 0.1
    rate("positives without width at scale 2", crossed[..., 0], 1 / 8)
    rate("positives without height at scale 2", crossed[..., 1], 1 / 8)


def sampled_in_many_slots(subject: Subject) -> Iterator[Case]:
    yield from sampled(subject)
    yield noisy(subject, (300, 130), "of boxes in 300 slots", denoising_number=700, box_noise_scale=APART)


@covers("CDN-18", cases=sampled_in_many_slots, dtypes=FULL)
def test_no_two_queries_are_alike(subject: Subject, case: Case) -> None:
    """Four random numbers of 24 bits: no group repeats the noise of another, or has none."""
    references = queries(subject, case).references
    still = denoised_by_nothing(subject, case)
    for image, slot in case_slots(case):
        rows = references[image, :, :, slot].flatten(0, 1)
        rows = torch.cat((rows, still[image, slot][None]))
        repeated = len(rows) - len(rows.unique(dim=0))
        expect(
            not repeated,
            f"{repeated} of {len(rows) - 1} queries of box {slot} of image {image} are like another, or have no noise",
            where="references",
            expected="0",
            got=str(repeated),
        )


def case_slots(case: Case) -> list[tuple[int, int]]:
    """The image and the slot of each box."""
    return [(image, slot) for image, count in enumerate(case["target_counts"].tolist()) for slot in range(count)]


def denoised_by_nothing(subject: Subject, case: Case) -> Tensor:
    """(B, M, 4): the references without noise, as the target itself rounds them."""
    return queries(subject, with_option(case, "box_noise_scale", 0.0)).references[:, 0, 0]


@covers("CDN-18", cases=sampled, dtypes=FULL)
def test_moves_are_drawn_one_by_one(subject: Subject, case: Case) -> None:
    moves = queries(subject, case).moves
    far = moves.abs() - torch.tensor([0.5, 1.5])[:, None, None]
    independent("signs of moves", moves > 0)
    independent("lengths of moves", far)
    for one in range(4):
        uncorrelated("sign and length of a move", moves[..., one] > 0, far[..., one])
        for other in range(one):
            uncorrelated(f"lengths of moves of coordinates {other} and {one}", far[..., one], far[..., other])


NEAR = ((0, 0, 0.0), (1, 3, 1.0), (2, 2, 1.0), (3, 1, 0.0))  # box, its coordinate near a border, that border


def at_the_border(subject: Subject) -> Iterator[Case]:
    """Each box near one border, which its corner reaches with some probability, and far from the others."""
    left, low = [0.1, 0.5, 0.16, 0.3], [0.5, 0.9, 0.3, 0.16]
    right, high = [0.9, 0.5, 0.16, 0.3], [0.5, 0.1, 0.3, 0.16]
    boxes = torch.tensor([left, low, right, high], dtype=torch.float64)
    yield noisy(subject, (4,), "at the border", boxes=boxes, box_noise_scale=APART)


@covers("CDN-19", cases=at_the_border)
def test_corners_are_clamped(subject: Subject, case: Case) -> None:
    """A corner that would leave the image lies on its border, and the opposite one is where it would be anyway."""
    seen = queries(subject, case)
    low, high = float(seen.corners.min()), float(seen.corners.max())
    beyond = max(-low, high - 1)
    expect(beyond <= seen.slack, f"noised corners lie {beyond:.4g} beyond the image", where="references")
    for box, coordinate, border in NEAR:
        gap = (corners_of(seen.boxes)[0, box, coordinate] - border).abs() / seen.units[0, box, coordinate]
        require(0 < gap < 1, "a border within reach of positives too")
        opposite = seen.moves[0, :, :, box, (coordinate + 2) % 4].abs()
        for kind, share in ((POSITIVE, (1 - float(gap)) / 2), (NEGATIVE, 0.5)):
            on_it = (seen.corners[0, :, kind, box, coordinate] - border).abs() <= seen.slack
            if subject.dtype in FULL:
                rate(f"{KINDS[kind]} corners on the border", on_it, share)
            excess = float(opposite[:, kind].max()) - 1 - kind
            slack = seen.slack / float(seen.units[0, box, coordinate])
            expect(excess <= slack, f"the opposite corner moved {excess:.3g} too far", where="references")


@covers("CDN-20", cases=lambda subject: [noisy(subject, note="of boxes, scale 1", box_noise_scale=1.0)])
def test_corners_may_change_places(subject: Subject, case: Case) -> None:
    seen = queries(subject, case)
    crossed = seen.references[:, :, NEGATIVE, :, 2:] < math.log(seen.eps) + 0.1
    rate("negatives without width", crossed[..., 0], 1 / 4)
    rate("negatives without height", crossed[..., 1], 1 / 4)
    rate("negatives without width or height", crossed.any(-1), 7 / 16)
    off = (seen.noised_boxes[:, :, NEGATIVE, :, :2] - seen.boxes[:, None, :, :2]) / seen.units[:, None, :, :2]
    worst = float(off.abs()[crossed].max())
    slack = seen.slack / float(seen.units.min())
    expect(worst <= 0.5 + slack, f"the middle of crossed corners moved {worst:.3g} half sides, expected up to 0.5")


def borders(subject: Subject) -> Iterator[Case]:
    """Ordinary boxes, points, lines, the whole image, and boxes around its corners, all but unmoved."""
    yield next(quiet(subject))
    yield denoising_case(subject, (4, 6), "degenerate, unmoved", boxes=degenerate_boxes(), **QUIET)


@covers("CDN-21", cases=borders)
def test_references_are_logits(subject: Subject, case: Case) -> None:
    unmoved(subject, queries(subject, case))


def without_box_noise(subject: Subject) -> Iterator[Case]:
    yield denoising_case(subject, (3, 2), "without box noise", denoising_number=9, box_noise_scale=0.0)


@covers("CDN-22", cases=without_box_noise)
def test_without_box_noise(subject: Subject, case: Case) -> None:
    unmoved(subject, queries(subject, case))


def degenerate(subject: Subject) -> Iterator[Case]:
    for scale in (0.5, 1.0):
        yield denoising_case(subject, (4, 6), f"degenerate, scale {scale}", boxes=degenerate_boxes(),
                             denoising_number=60, box_noise_scale=scale)  # fmt: skip


@covers("CDN-23", cases=degenerate)
def test_degenerate_boxes(subject: Subject, case: Case) -> None:
    seen = queries(subject, case)
    strange = ~seen.references.isfinite()
    expect(not strange.any(), f"{int(strange.sum())} references are not finite", where="references")
    largest, most = float(seen.references.abs().max()), -math.log(seen.eps)
    expect(largest <= most * (1 + 4 * round_off(subject)), f"a reference is {largest:.5g}, beyond {most:.5g}")


@covers("CDN-24", cases=borders)
def test_accuracy(subject: Subject, case: Case) -> None:
    unmoved(subject, queries(subject, case), arithmetic=torch.finfo(torch.float32).eps / 2)
