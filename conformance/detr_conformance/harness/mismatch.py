"""What a failed comparison says: where, expected, got, limit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PLAIN = "plain"
SIGMAS = 6.0  # of a right implementation, one statistic in 500 million lies beyond


class SuiteError(Exception):
    """The suite itself is wrong (an unreached regime, a broken oracle). Never the target's fault."""


@dataclass
class Mismatch(AssertionError):
    """The target differs from what a clause asks for.

    Attributes:
        message: one line, complete in itself.
        where: the element that differs most, as in "grad_value[0, 3, 1, 2]".
        expected, got, limit: numbers as text, so that NaN and infinity survive JSON.
        count: "12 of 480 elements".
        ratio: the error over its limit, where that is a number.
        kind: of `evidence.any_call.COMMON`, if any call with that mistake fails, whatever the test asks; PLAIN, if it
            is about the plain call that a test begins with.
    """

    message: str
    where: str | None = None
    expected: str | None = None
    got: str | None = None
    limit: str | None = None
    count: str | None = None
    ratio: float | None = None
    detail: str | None = None
    kind: str | None = None

    def __str__(self) -> str:
        return self.message

    def told(self, detail: str) -> dict[str, Any]:
        """What a result event says of it beside the message."""
        parts = {name: getattr(self, name) for name in ("where", "expected", "got", "limit", "count", "kind")}
        return parts | {"detail": detail, "raised": isinstance(self, Raised)}


@contextmanager
def plainly() -> Iterator[None]:
    """What fails within is the plain call, which a test about how calls are made begins with."""
    try:
        yield
    except Mismatch as mismatch:
        mismatch.kind = mismatch.kind or PLAIN
        raise


class Raised(Mismatch):
    """The target raised an exception where the clause asks for a result."""


class NoTensor(Mismatch):
    """What came back is of another library, or nothing at all."""


def compare(name: str, got: Tensor, expected: Tensor, limit: Tensor, interval: Tensor | None = None) -> float:
    """|got - expected| <= limit, element by element; finiteness must match exactly.

    Args:
        got: the target's tensor, any dtype and device.
        expected: float64, CPU.
        limit: float64, CPU, of the same shape.
        interval: (2, *shape): the lowest and highest right answer where there are several (subgradients).

    Returns:
        The largest error as a share of its limit.

    Raises:
        Mismatch: an element is outside its limit, or the shapes differ.
    """
    check_form(name, got, expected)
    dtype = got.dtype
    got = got.detach().to("cpu", torch.float64)
    if got.numel() == 0:
        return 0.0
    low, high = (expected, expected) if interval is None else interval.unbind(0)
    rounded = expected.to(dtype).to(torch.float64)
    finite = rounded.isfinite()

    error = torch.maximum(low - got, got - high).clamp(min=0)
    ratio = torch.where(error == 0, 0.0, error / limit)
    same_kind = torch.where(rounded.isnan(), got.isnan(), got == rounded)
    ratio = torch.where(finite, ratio.nan_to_num(nan=math.inf, posinf=math.inf), torch.where(same_kind, 0.0, math.inf))
    worst = int(ratio.argmax())
    if ratio.flatten()[worst] <= 1:
        return float(ratio.max())
    mismatch = at_element(
        name, worst, got, expected, limit=f"{limit.flatten()[worst]:.3g}", wrong=int((ratio > 1).sum())
    )
    mismatch.ratio = float(ratio.max())
    raise mismatch


def compare_exactly(name: str, got: Tensor, expected: Tensor) -> None:
    """got == expected, bit for bit up to the sign of zero; expected is rounded to the dtype of got first.

    Raises:
        Mismatch: an element differs, or the shapes differ.
    """
    check_form(name, got, expected)
    got, expected = got.detach().cpu(), expected.detach().cpu().to(got.dtype)
    wrong = ~((got == expected) | (got.isnan() & expected.isnan()))
    if not wrong.any():
        return
    got64, expected64 = got.to(torch.float64), expected.to(torch.float64)
    gap = torch.where(wrong, (got64 - expected64).abs().nan_to_num(nan=math.inf), -1.0)
    raise at_element(name, int(gap.argmax()), got64, expected64, limit="0 (exact)", wrong=int(wrong.sum()))


def check_form(name: str, got: Tensor, expected: Tensor) -> None:
    """Raises Mismatch unless `got` is a tensor of the expected shape."""
    if not isinstance(got, Tensor):
        raise NoTensor(f"{name} is {not_a_tensor(got)}", where=name, got=type(got).__name__)
    if got.shape != expected.shape:
        raise Mismatch(
            f"{name} has shape {tuple(got.shape)}, expected {tuple(expected.shape)}",
            where=f"{name}.shape",
            expected=str(tuple(expected.shape)),
            got=str(tuple(got.shape)),
            kind="form",
        )


def not_a_tensor(got: Any) -> str:
    """What it is instead, and of the array of another library which adapter takes it."""
    said = f"a {type(got).__name__}, not a tensor"
    package = type(got).__module__.partition(".")[0]
    if package in ("numpy", "jax", "jaxlib") or hasattr(got, "__dlpack__"):
        adapter = {"numpy": "from_numpy", "jax": "from_jax", "jaxlib": "from_jax"}.get(package, "from_dlpack")
        said += f"; provide {adapter}(your_function), and from detr_conformance import {adapter}"
    return said


def at_element(name: str, flat: int, got: Tensor, expected: Tensor, limit: str, wrong: int) -> Mismatch:
    """The Mismatch for one element of two float64 tensors."""
    index = [int(i) for i in torch.unravel_index(torch.tensor(flat), got.shape)] if got.ndim else []
    where = f"{name}{index}"
    want, have = f"{expected.flatten()[flat]:.9g}", f"{got.flatten()[flat]:.9g}"
    return Mismatch(
        f"{where}: expected {want}, got {have}, limit {limit}",
        where=where,
        expected=want,
        got=have,
        limit=limit,
        count=f"{wrong} of {got.numel()} elements",
    )


def expect(
    condition: bool,
    message: str,
    *,
    where: str | None = None,
    expected: str | None = None,
    got: str | None = None,
    limit: str | None = None,
    kind: str | None = None,
) -> None:
    """Raises Mismatch with the message unless the condition holds."""
    if not condition:
        raise Mismatch(message, where, expected, got, limit, kind=kind)


def expect_share(what: str, hits: Tensor, probability: float, *, where: str = "output", sigmas: float = SIGMAS) -> None:
    """The share of independent hits is their probability, within so many standard deviations."""
    share, count = hits.double().mean().item(), hits.numel()
    slack = sigmas * math.sqrt(probability * (1 - probability) / count) + 1e-9
    expect(
        abs(share - probability) <= slack,
        f"{what}: a share of {share:.4f} in {count}, expected {probability:.4f} within {slack:.4f}",
        where=where,
        expected=f"{probability:.4f}",
        got=f"{share:.4f}",
        limit=f"{slack:.4f}",
    )


def require(condition: bool | Tensor, what: str) -> None:
    """A regime must have been reached; otherwise the test would show nothing."""
    if not bool(condition):
        raise SuiteError(f"the case does not reach its regime: {what}")
