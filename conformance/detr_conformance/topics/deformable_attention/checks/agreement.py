"""Comparisons that several tests of `ms_deform_attn` share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from detr_conformance.harness.case import Case
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.deformable_attention.cases.core import (
    Structure,
    case_at,
    everywhere,
    pixels_of,
    structure_of,
)
from detr_conformance.topics.deformable_attention.checks.oracle import Rounding, expectations, oracle, smooth_share

GRADIENTS = ("value", "sampling_locations", "attention_weights")


def rounding_of(subject: Subject, precise: bool = False) -> Rounding:
    """The strict limits for clauses about precision (`precise`), the structural ones for all others, so that a kernel
    that sums in half precision fails the clauses that say so, and these alone."""
    make = Rounding.of if precise else Rounding.structural
    return make(subject.dtype, subject.variant("coordinates"))


def agrees(subject: Subject, case: Case, precise: bool = False) -> None:
    """The output lies within its limits."""
    check_output(subject, subject.forward(case), case, precise)


def check_output(subject: Subject, output: Tensor, case: Case, precise: bool = False) -> None:
    _compare(subject, "output", output, expectations(case, rounding_of(subject, precise), backward=False)["output"])


def gradients_agree(subject: Subject, case: Case, names: Iterable[str] = GRADIENTS, precise: bool = False) -> None:
    """The named gradients lie within their limits."""
    check_gradients(subject, subject.run(case).gradients, case, names, precise)


def check_gradients(
    subject: Subject,
    gradients: dict[str, Tensor | None],
    case: Case,
    names: Iterable[str] = GRADIENTS,
    precise: bool = False,
) -> None:
    _compare_gradients(subject, gradients, expectations(case, rounding_of(subject, precise)), names)


def whole(subject: Subject, case: Case) -> None:
    """Output and gradients lie within their limits; the gradients where the target has them."""
    if not subject.backward:
        agrees(subject, case)
        return
    result = subject.run(case)
    right = expectations(case, rounding_of(subject))
    _compare(subject, "output", result.output, right["output"])
    _compare_gradients(subject, result.gradients, right, GRADIENTS)


def ordinary(subject: Subject, _: Case) -> None:
    """Output and gradients of a small call of convenient sizes lie within their limits, whatever the case is."""
    convenient = Structure(((8, 8), (4, 4)), batch=2, queries=8, heads=4, channels=8, points=4)
    whole(subject, case_at(subject, convenient, everywhere, note="an ordinary call"))


def _compare(subject: Subject, name: str, got: Tensor, right: Expectation) -> None:
    subject.compare(name, got, right.expected, right.limit, right.interval)


def _compare_gradients(
    subject: Subject, gradients: dict[str, Tensor | None], right: dict[str, Expectation], names: Iterable[str]
) -> None:
    for name in names:
        _compare(subject, f"grad_{name}", subject.gradient(name, gradients), right[f"grad_{name}"])


def exact_output(subject: Subject, case: Case) -> None:
    """The output is the oracle's, rounded to the claimed dtype, bit for bit."""
    subject.compare_exactly("output", subject.forward(case), oracle(case, backward=False)["output"])


def exactly_zero(subject: Subject, name: str, tensor: Tensor) -> None:
    subject.compare_exactly(name, tensor, torch.zeros_like(tensor))


def require_smooth(subject: Subject, case: Case, share: float = 0.75) -> None:
    """Location gradients are compared with one number, not with an interval, for at least this share of the samples."""
    require(smooth_share(case, Rounding.of(subject.dtype)) >= share, "too many samples near a kink")


def touched_cells(case: Case, margin: float = 0.02) -> Tensor:
    """(B, S, M) bool: cells that are a corner of some sample in range, or would be if it moved by `margin`."""
    s = structure_of(case)
    touched = torch.zeros(s.batch, s.cells + 1, s.heads, dtype=torch.bool)
    pixels = pixels_of(case)
    image = torch.arange(s.batch)[:, None, None, None, None].expand(s.samples)
    head = torch.arange(s.heads)[:, None, None].expand(s.samples)
    height, width = (side[:, None] for side in case["spatial_shapes"].unbind(-1))
    start = case["level_start_index"][:, None]
    for dy in (-margin, margin):
        for dx in (-margin, margin):
            corner = (pixels + torch.tensor((dx, dy))).clamp(-1e6, 1e6).floor().long()
            for down in (0, 1):
                for across in (0, 1):
                    j, i = corner[..., 0] + across, corner[..., 1] + down
                    valid = (i >= 0) & (i < height) & (j >= 0) & (j < width)
                    cell = torch.where(valid, start + i * width + j, s.cells)
                    touched[image, cell, head] = True
    return touched[:, :-1]


def share_memory(one: Tensor, other: Tensor) -> bool:
    """Whether an element of one lies where an element of the other does; two slices of one arena do not share."""
    if one.untyped_storage().data_ptr() != other.untyped_storage().data_ptr():
        return False
    return bool(torch.isin(_addresses(one), _addresses(other)).any())


def _addresses(tensor: Tensor) -> Tensor:
    """Of every byte, counted from the beginning of the storage."""
    offsets = torch.zeros(1, dtype=torch.int64)
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        offsets = (offsets[:, None] + torch.arange(size) * stride).flatten()
    first = torch.as_tensor((offsets + tensor.storage_offset()) * tensor.itemsize)
    return (first[:, None] + torch.arange(tensor.itemsize)).flatten()
