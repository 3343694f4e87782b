"""Which results of which call a comparison is about, element by element."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detr_conformance.vectors.tape import Call, Comparison, Tape

Place = tuple[int, str]  # call, result


@dataclass(frozen=True)
class Judged:
    """What is asked of some elements of one result.

    Attributes:
        elements: their places in the flattened result.
        expected: float64.
        limit: None where exactly this is right, rounded to the result's dtype.
    """

    place: Place
    elements: Tensor
    expected: Tensor
    limit: Tensor | None


class Catalogue:
    """Every tagged element of every floating result, to be found by its tag."""

    def __init__(self, calls: list[Call]) -> None:
        self._results = [((n, name), t) for n, call in enumerate(calls) for name, t in call.results.items()]
        self._places: list[Place] = []
        tags, place, element = [], [], []
        for where, tensor in self._results:
            if tensor.is_floating_point() and tensor.numel():
                tags.append(tensor.detach().double().flatten())
                place.append(torch.full((tensor.numel(),), len(self._places)))
                element.append(torch.arange(tensor.numel()))
                self._places.append(where)
        empty = torch.empty(0, dtype=torch.int64)
        joined = torch.cat(tags) if tags else empty.double()
        self._tags, order = joined.sort()
        self._place, self._element = (torch.cat(t)[order] if t else empty for t in (place, element))

    def find(self, tagged: Tensor) -> dict[Place, tuple[Tensor, Tensor]] | None:
        """{place: (which elements of `tagged`, which elements of the result)}; None if some are none of them."""
        wanted = tagged.double().flatten()
        for where, tensor in self._results:
            if tensor.numel() == len(wanted) and torch.equal(tensor.double().flatten(), wanted):
                every = torch.arange(len(wanted))
                return {where: (every, every)}
        if not len(self._tags) or not tagged.is_floating_point():
            return None
        first = torch.searchsorted(self._tags, wanted)
        last = torch.searchsorted(self._tags, wanted, right=True)
        if not bool((last - first == 1).all()):
            return None
        place, element = self._place[first], self._element[first]
        found = {}
        for number in place.unique().tolist():
            (own,) = torch.nonzero(place == number, as_tuple=True)
            found[self._places[number]] = (own, element[own])
        return found


def judged(
    right: Comparison, tagged: Comparison, others: list[Comparison], tape: Tape, catalogue: Catalogue
) -> list[Judged] | str:
    """What a comparison asks of results, or why it asks nothing that can be told in advance.

    Args:
        right: as the property makes it with the reference.
        tagged: the same with tags in the place of results.
        others: the same with other answers still.
    """
    found = catalogue.find(tagged.got) if tagged.got.numel() else {}
    if found is None:
        return "is about something computed from the results"
    own = _independent(right, [tagged, *others])
    if right.got.numel() and not own.any():
        return "expects what depends on the answer itself"
    expected, limit = _folded(right)
    parts = []
    for place, (here, there) in found.items():
        result = tape.calls[place[0]].results[place[1]].flatten()
        if not torch.equal(_plain(result[there]), _plain(right.got.flatten()[here])):
            return "is about something computed from the results"
        keep = own.flatten()[here]
        chosen = here[keep]
        parts.append(Judged(place, there[keep], expected[chosen], None if limit is None else limit[chosen]))
    return parts


def _plain(tensor: Tensor) -> Tensor:
    return tensor.double().nan_to_num(0.5, 1e300, -1e300)


def _independent(right: Comparison, others: list[Comparison]) -> Tensor:
    """Where all that is expected is the same, whatever was answered."""
    same = torch.ones(right.got.shape, dtype=torch.bool)
    for other in others:
        if other.expected.shape != right.expected.shape:
            return torch.zeros_like(same)
        same &= _equal(other.expected, right.expected)
        if right.limit is not None and other.limit is not None:
            same &= _equal(other.limit, right.limit)
        if right.interval is not None and other.interval is not None:
            same &= _equal(other.interval, right.interval).all(0)
    return same


def _equal(one: Tensor, other: Tensor) -> Tensor:
    return (one == other) | (one.isnan() & other.isnan())


def _folded(right: Comparison) -> tuple[Tensor, Tensor | None]:
    """Expected numbers and limits, flat; the middle of an interval, and half of it on top of the limit."""
    expected = right.expected.double()
    if right.limit is None:
        return expected.flatten(), None
    limit = right.limit.double().expand_as(expected)
    if right.interval is not None:
        low, high = right.interval.double()
        wide = low.isfinite() & high.isfinite() & (low < high)
        middle = low + (high - low) / 2
        limit = torch.where(wide, limit + (high - low) / 2, limit)
        expected = torch.where(wide, middle, expected)
    return expected.flatten(), limit.flatten()
