"""What denoising queries say of the noise they were made with, and how likely that is.

Nobody's random numbers are compared: labels are read off the content, moves of corners off the references.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from detr_conformance.harness.block import calling, make, seeded
from detr_conformance.harness.block_case import settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import SIGMAS, expect, expect_share, require
from detr_conformance.harness.subject import Subject

FULL = ("float64", "float32")  # in half, what a reference says of the noise is too coarse for statistics
POSITIVE, NEGATIVE = 0, 1
KINDS = ("positive", "negative")


@dataclass(frozen=True)
class Queries:
    """The denoising queries of one call by image, group, kind (positives, negatives) and slot.

    Attributes:
        content: (B, G, 2, M, C), as returned.
        references: (B, G, 2, M, 4), float64 logits.
        taken: (B, M), the slots that hold a box.
        labels, boxes: (B, M) and (B, M, 4) float64, the truth in its slots.
        embedding: (K, C), rows of the content.
        scale: of the box noise.
        slack: how far a coordinate read off a reference may be off, whatever the order of arithmetic.
        eps: of the logit.
    """

    content: Tensor
    references: Tensor
    taken: Tensor
    labels: Tensor
    boxes: Tensor
    embedding: Tensor
    scale: float
    slack: float
    eps: float

    @cached_property
    def noised_boxes(self) -> Tensor:
        """(B, G, 2, M, 4), cxcywh."""
        return self.references.sigmoid()

    @cached_property
    def corners(self) -> Tensor:
        """(B, G, 2, M, 4), xyxy."""
        return corners_of(self.noised_boxes)

    @cached_property
    def moves(self) -> Tensor:
        """(B, G, 2, M, 4): how far each corner went, in half sides times scale. NaN in empty slots."""
        moved = self.corners - corners_of(self.boxes)[:, None, None]
        return (moved / self.units[:, None, None]).masked_fill(~self.everywhere[..., None], torch.nan)

    @cached_property
    def units(self) -> Tensor:
        """(B, M, 4): half sides times scale."""
        return self.boxes[..., 2:].repeat(1, 1, 2) / 2 * self.scale

    @cached_property
    def everywhere(self) -> Tensor:
        """(B, G, 2, M), `taken` for each group and kind."""
        return self.taken[:, None, None].expand(self.content.shape[:-1])

    @cached_property
    def noised_labels(self) -> Tensor:
        """(B, G, 2, M): whose row of the embedding each query has; -1 if nobody's, and in empty slots."""
        same = (self.content[..., None, :] == self.embedding).all(-1)
        return torch.where(same.any(-1) & self.everywhere, same.byte().argmax(-1), -1)


def queries(subject: Subject, case: Case) -> Queries:
    """Calls the target with the run's seed; the global generator is left as it was."""
    with seeded(subject):
        return arranged(subject, case, returned(subject, case))


def returned(subject: Subject, case: Case) -> dict[str, Tensor]:
    """All that a call returns, whatever its number of queries: a wrong one is for CDN-2 to tell."""
    bound, inputs = calling(subject, make(subject, case), case)
    return output_of(bound, bound.arguments(inputs))


def output_of(bound: Subject, arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    bound.shapes = None
    bound.call(arguments)
    output = bound.raw
    expect(isinstance(output, Mapping), f"the output is a {type(output).__name__}, not a dict")
    for name in ("content", "references"):
        expect(isinstance(output.get(name), Tensor), f"the output has no tensor {name}", where=name)
    return dict(output)


def arranged(subject: Subject, case: Case, output: dict[str, Tensor]) -> Queries:
    """What a call returned, beside the truth it was made of."""
    counts = case["target_counts"].tolist()
    largest = max(counts)
    taken = torch.arange(largest) < case["target_counts"][:, None]
    labels = torch.zeros(len(counts), largest, dtype=torch.int64)
    boxes = torch.zeros(len(counts), largest, 4, dtype=torch.float64)
    labels[taken], boxes[taken] = case["target_labels"], case["target_boxes"].double()
    axes = (groups_in(case, output["content"]), 2, largest)
    return Queries(
        output["content"].detach().cpu().unflatten(1, axes),
        output["references"].detach().cpu().double().unflatten(1, axes),
        taken,
        labels,
        boxes,
        case["label_embedding"],
        settings_of(case).get("box_noise_scale", 1.0),
        8 * round_off(subject),
        float(subject.variant("denoising_eps")),
    )


def mask_of(subject: Subject, case: Case) -> Tensor:
    """The mask of a call, on the CPU and boolean."""
    with seeded(subject):
        output = returned(subject, case)
    expect("attn_mask" in output, "the output has no attn_mask", where="attn_mask")
    mask = output["attn_mask"]
    total = output["content"].shape[1] + settings_of(case)["num_queries"]
    expect(mask.dtype == torch.bool, f"attn_mask has dtype {mask.dtype}, expected torch.bool", where="attn_mask.dtype")
    shape = tuple(mask.shape)
    expect(shape == (total, total), f"attn_mask is {shape}, expected {(total, total)}", where="attn_mask.shape")
    return mask.cpu()


def right_mask(subject: Subject, case: Case) -> None:
    """Every entry of the mask, by the groups that the target made."""
    mask, matching = mask_of(subject, case), settings_of(case)["num_queries"]
    denoising, size = len(mask) - matching, 2 * int(case["target_counts"].max())
    group = torch.arange(len(mask)).clamp(max=denoising) // size
    hidden = (group[:, None] != group) & (torch.arange(len(mask)) < denoising)
    subject.compare_exactly("attn_mask", mask, hidden)


def groups_in(case: Case, content: Tensor) -> int:
    """The number of groups that a target made; whether it is right, CDN-2 asks alone."""
    slots = 2 * int(case["target_counts"].max())
    groups, rest = divmod(content.shape[1], slots) if slots else (1, content.shape[1])
    expect(
        groups > 0 and not rest,
        f"{content.shape[1]} denoising queries are no groups of {slots}, a positive and a negative for each slot",
        where="content.shape",
    )
    return groups


def groups_of(case: Case) -> int:
    """The number of groups, by its formula."""
    largest = int(case["target_counts"].max())
    return max(1, settings_of(case).get("denoising_number", 100) // largest) if largest else 1


def round_off(subject: Subject) -> float:
    """Unit round-off of the claimed dtype; float64 may be computed in float32."""
    return max(torch.finfo(subject.torch_dtype).eps, torch.finfo(torch.float32).eps) / 2


def corners_of(boxes: Tensor) -> Tensor:
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), -1)


def logits_of(boxes: Tensor, eps: float) -> Tensor:
    """The references that these boxes become."""
    inside = boxes.clamp(0, 1)
    return torch.log(inside.clamp(min=eps) / (1 - inside).clamp(min=eps))


# -- single queries -------------------------------------------------------------------------------------------


def unmoved(subject: Subject, seen: Queries, arithmetic: float | None = None) -> None:
    """Every reference is the logit of its own true box, but for what the noise may do at this scale.

    Args:
        arithmetic: unit round-off of the computation, where it must be better than that of the dtype.
    """
    u = round_off(subject)
    moved = 8 * (u if arithmetic is None else arithmetic) + 2 * seen.scale  # a side loses two half sides at most
    logit, high, low = (logits_of(seen.boxes + by, seen.eps) for by in (0.0, moved, -moved))
    limit = torch.maximum(high - logit, logit - low) + (4 if arithmetic is None else 1.5) * u * logit.abs() + 4e-7
    expected, limits = (t[:, None, None].expand(seen.references.shape)[seen.everywhere] for t in (logit, limit))
    subject.compare("references of the true boxes", seen.references[seen.everywhere], expected, limits)


def unchanged_labels(subject: Subject, seen: Queries) -> None:
    """Every content is the row of its own true label."""
    expected = seen.labels[:, None, None].expand(seen.noised_labels.shape)
    subject.compare_exactly("label read off content", seen.noised_labels[seen.everywhere], expected[seen.everywhere])


def within(seen: Queries, kind: int, low: float, high: float) -> None:
    """Every corner of a kind moved by low to high half sides, times scale."""
    moves = seen.moves[:, :, kind].abs()
    narrow = seen.eps / 2 if seen.scale > 0.5 else 0.0  # a side may have shrunk to less than eps, and counts as eps
    slack = (seen.slack + narrow) / seen.units[:, None]
    outside = (moves > high + slack) | (moves < low - slack)
    if not outside.any():
        return
    worst = torch.where(outside, (moves - (low + high) / 2).abs(), -1.0)
    place = [int(i) for i in torch.unravel_index(worst.argmax(), worst.shape)]
    expect(
        False,
        f"corner coordinate {place[3]} of the {KINDS[kind]} of box {place[2]} of image {place[0]} in group {place[1]} "
        f"moved by {moves[tuple(place)]:.4g} times half the side times scale, expected {low:g} to {high:g}",
        where=f"references, image {place[0]}, group {place[1]}, {KINDS[kind]} slot {place[2]}",
        expected=f"{low:g} to {high:g}",
        got=f"{moves[tuple(place)]:.6g}",
    )


# -- statistics -----------------------------------------------------------------------------------------------


def rate(what: str, hits: Tensor, expected: float) -> None:
    """A share of independent hits has its expectation, within six standard deviations."""
    require(hits.numel() > 200, "a sample large enough to say something")
    expect_share(what, hits, expected, where=what)


def uncorrelated(what: str, one: Tensor, other: Tensor) -> None:
    """Two samples, pair by pair, have correlation 0 within six standard deviations."""
    require(one.numel() > 200, "a sample large enough to say something")
    first, second = (t - t.mean() for t in (one.flatten().double(), other.flatten().double()))
    spread = float(first.norm() * second.norm())
    got, limit = float(first @ second) / spread if spread else 1.0, SIGMAS / math.sqrt(one.numel())
    expect(
        abs(got) <= limit,
        f"{what}: correlation {got:.4f} in {one.numel()} pairs, expected 0 +- {limit:.4f}",
        where=what,
        expected="0",
        got=f"{got:.4f}",
        limit=f"{limit:.4f}",
    )


def uniform(what: str, sample: Tensor, low: float, high: float) -> None:
    """The largest distance of the empirical distribution from the uniform one (Kolmogorov's) is a likely one."""
    require(sample.numel() > 200, "a sample large enough to say something")
    steps = torch.arange(1, sample.numel() + 1).double() / sample.numel()
    share = ((sample.flatten().double().sort().values - low) / (high - low)).clamp(0, 1)
    got, limit = float((share - steps).abs().max()), 3.3 / math.sqrt(sample.numel())  # 2 exp(-2 * 3.3 ** 2) = 7e-10
    expect(
        got <= limit,
        f"{what}: its distribution is {got:.4f} away from the uniform one, expected at most {limit:.4f}",
        where=what,
        expected="0",
        got=f"{got:.4f}",
        limit=f"{limit:.4f}",
    )


def independent(what: str, drawn: Tensor) -> None:
    """(B, G, 2, M, ...): what was drawn for neighbours in image, group, kind or slot is uncorrelated."""
    for axis, neighbours in enumerate(("two images", "two groups", "positives and negatives", "two slots")):
        last = drawn.shape[axis] - 1
        uncorrelated(f"{what} of {neighbours}", drawn.narrow(axis, 1, last), drawn.narrow(axis, 0, last))
