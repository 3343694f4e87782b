"""Whether what was timed is right: every round's results beside those of the reference for the same contents.

Two things are taken of each result. Its distance from the reference's by norm tells a part that is missing. Half and
nine tenths of its elements must be near, in units of the reference's root mean square: that tells a coarser precision,
and is not moved by the few elements at a kink or by a query that was selected in place of its equal. How near is
measured as the suite measures it (`detr_conformance.harness.random_rounding`): a multiple of what one rounding of every
argument and parameter changes the reference's own results by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

DISAGREEMENT = 0.05  # of the norm, or what rounding explains: a part that is missing, an index that overflowed
DEVIATIONS = 16.0  # how many roundings of the arguments a right implementation may be away, as in chapter 3
LONG_SUMS = 256.0  # roundings of float32 that another order of a long sum may add
UNRELATED = 0.25  # results for other contents differ by more than 1
SHARES = (0.5, 0.9)  # of the elements
OTHER_QUERIES = (0.25, 1.0)  # how far these may be off where near-equal queries may be exchanged
FEWEST, SAMPLED = 1 << 10, 1 << 16  # elements of a result of which shares are told, and that are looked at


class Disagrees(Exception):
    """At this size the target computes something else than the reference, whatever it did in the check."""


@dataclass(frozen=True)
class Apart:
    """How far two results are apart, as a share of the second one.

    Attributes:
        norm: by Euclidean norms.
        shares: how near each of `SHARES` of the elements is at least; not of a result of a few elements.
    """

    norm: float
    shares: tuple[float, ...] = (0.0,) * len(SHARES)


Results = Mapping[str, Tensor]


def apart(got: Tensor, right: Tensor) -> Apart:
    """Of two tensors of one shape."""
    a, b = (t.detach().to(torch.promote_types(t.dtype, torch.float32)).flatten() for t in (got, right))
    tiny = torch.finfo(b.dtype).tiny
    norm = float((a - b).norm() / b.norm().clamp(min=tiny))
    if b.numel() < FEWEST:
        return Apart(norm)
    if b.numel() > SAMPLED:
        chosen = torch.randint(b.numel(), (SAMPLED,), device=b.device)
        a, b = a[chosen], b[chosen]
    told = (a != 0) | (b != 0)
    if not told.any():
        return Apart(norm)
    a, b = a[told], b[told]
    off = (a - b).abs().nan_to_num(nan=torch.inf).sort().values / b.square().mean().sqrt().clamp(min=tiny)
    return Apart(norm, tuple(float(off[int(share * (len(off) - 1))]) for share in SHARES))


Limits = Mapping[str, Apart]


def limits(rounded: Results, right: Results) -> Limits:
    """How far each result may be off.

    Args:
        rounded: the reference's results where each argument and parameter was moved by at most one rounding.
    """
    return {name: _limit(apart(rounded[name], tensor), tensor.dtype) for name, tensor in right.items()}


def _limit(moved: Apart, dtype: torch.dtype) -> Apart:
    unit, single = (max(torch.finfo(each).eps, torch.finfo(torch.float32).eps) / 2 for each in (dtype, torch.float32))
    explained = (DEVIATIONS * (each + unit) + LONG_SUMS * single for each in moved.shares)
    shares = (min(limit, max(UNRELATED, 1.5 * each)) for limit, each in zip(explained, moved.shares, strict=True))
    return Apart(max(DISAGREEMENT, min(UNRELATED, 4 * moved.norm)), tuple(shares))


def require_agreement(got: Results, right: Results, allowed: Limits, by_norm: bool) -> float:
    """The largest distance by norm of the results.

    Args:
        allowed: of `limits`.
        by_norm: whether two right implementations are near by norm too (`session.comparable`).

    Raises:
        Disagrees: something is missing, of another shape or kind, too far away or not finite.
    """
    worst = 0.0
    for name, expected in right.items():
        if name not in got or got[name].shape != expected.shape:
            shape = tuple(got[name].shape) if name in got else "nothing"
            raise Disagrees(f"at this size {name} is {shape}, not {tuple(expected.shape)}")
        require_plain(name, got[name])
        found = apart(got[name], expected)
        if by_norm and not found.norm <= allowed[name].norm:
            raise Disagrees(f"at this size {name} differs from the reference by {found.norm:.0%} of its norm")
        least = (0.0, 0.0) if by_norm else OTHER_QUERIES
        for share, off, *several in zip(SHARES, found.shares, allowed[name].shares, least, strict=True):
            limit = max(several)
            if not off <= limit:
                part = f"{1 - share:.0%} of the elements of {name} differ from the reference"
                told = f"by more than {off:.2g} of its size, where rounding explains {limit:.2g}"
                raise Disagrees(f"at this size {part} {told}")
        worst = max(worst, found.norm)
    return worst


def require_plain(name: str, tensor: Tensor) -> None:
    """Raises Disagrees of a subclass: what it holds may be computed when it is read."""
    if type(tensor) not in (Tensor, nn.Parameter):
        raise Disagrees(f"{name} is a {type(tensor).__name__}, no plain tensor: it may be computed when it is read")
