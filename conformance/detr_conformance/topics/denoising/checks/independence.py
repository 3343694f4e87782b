"""Whether random numbers depend on each other, however they may, and how often a right implementation is suspected.

Everything drawn is made into *features* of mean 0 whose sums are known to be small: signs, lengths, bits of labels. Two
sets of them, each number beside its partner, are compared by

    T = sum x y / |y|,    P(|T| > t) <= 2 exp(-t^2 / 2) if x is independent of y,

for any number of pairs: signs and centred uniform numbers (and their cosines) are strictly sub-Gaussian, which means
that E exp(s x) <= exp(s^2 / 2) at variance 1, and so are then all weighted sums of them. A biased bit is, if it is
divided by the constant of Kearns and Saul in place of its deviation. With K comparisons at once some T is beyond

    t(K) = sqrt(2 log(2 K / ALARM))

with probability ALARM at most, whatever the comparisons have to do with each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from detr_conformance.harness.mismatch import expect, require
from detr_conformance.topics.denoising.checks.queries import KINDS, Queries

ALARM = 1e-9  # of one check: how often it suspects a right implementation, at most
AXES = ("image", "group", "kind", "slot")
IMAGE, GROUP, KIND, SLOT = range(4)


@dataclass(frozen=True)
class Statistic:
    """The largest of many |T|: of how many, how large, and where."""

    comparisons: int
    largest: float
    where: str

    @property
    def chance(self) -> float:
        """A bound of the probability that a right implementation has one as large."""
        return min(1.0, 2 * self.comparisons * math.exp(-(self.largest**2) / 2))


def limit(comparisons: int) -> float:
    return math.sqrt(2 * math.log(2 * comparisons / ALARM))


def unsuspicious(what: str, statistics: Iterator[Statistic]) -> None:
    """None of the statistics is larger than chance allows."""
    for each in statistics:
        most = limit(each.comparisons)
        expect(
            each.largest <= most,
            f"{what}: {each.where} go together, by {each.largest:.1f} where {each.comparisons} comparisons allow "
            f"{most:.1f}",
            where=each.where,
            expected=f"at most {most:.2f}",
            got=f"{each.largest:.2f}",
            limit=f"{most:.2f}",
        )


# -- features -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Features:
    """Numbers (image, group, kind, slot, feature), each of mean 0.

    Attributes:
        names: of the features.
        sources: which random number of a query each is made of; two of one number do depend on each other.
        asked: how many of the features, the first ones, are asked about; the others only beside them.
    """

    numbers: Tensor
    names: tuple[str, ...]
    sources: tuple[int, ...]
    asked: int

    def beside(self, other: Features) -> Features:
        """These, and others that they must not depend on."""
        shift = max(self.sources) + 1
        return Features(
            torch.cat((self.numbers, other.numbers), -1),
            self.names + other.names,
            self.sources + tuple(source + shift for source in other.sources),
            self.asked,
        )


def of_moves(seen: Queries) -> Features:
    """Of each corner coordinate its sign, its length, and the cosine of a full turn over the length's range."""
    require(seen.taken.all(), "no empty slots")
    share = seen.moves.abs() - torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None, None]
    each = (seen.moves.sign(), math.sqrt(3) * (2 * share - 1), math.sqrt(2) * (2 * math.pi * share).cos())
    names = tuple(f"{what} of coordinate {i}" for what in ("signs", "lengths", "cosines of lengths") for i in range(4))
    return Features(torch.cat(each, -1), names, tuple(range(8)) + tuple(range(4, 8)), len(names))


def of_signs(seen: Queries) -> Features:
    """The signs alone, which are exact and few."""
    every = of_moves(seen)
    return Features(every.numbers[..., :4], every.names[:4], every.sources[:4], 4)


def of_labels(seen: Queries, ratio: float) -> Features:
    """Whether a label changed, and the bits of what it became."""
    classes, truth = len(seen.embedding), seen.labels[:, None, None]
    drawn, kept = ratio / 2, 1 - ratio / 2
    numbers = [_centred((seen.noised_labels != truth).double(), torch.tensor(drawn * (1 - 1 / classes)))]
    for bit in range((classes - 1).bit_length()):
        share = drawn * sum(label >> bit & 1 for label in range(classes)) / classes
        numbers.append(_centred((seen.noised_labels >> bit & 1).double(), kept * (truth >> bit & 1) + share))
    names = ("changes of label", *(f"bit {bit} of labels" for bit in range(len(numbers) - 1)))
    return Features(torch.stack(numbers, -1), names, (0,) * len(numbers), len(numbers))


def _centred(bits: Tensor, chance: Tensor) -> Tensor:
    """Bits less their mean, over the root of Kearns and Saul's constant: (1 - 2 p) / (2 log((1 - p) / p))."""
    odd = chance.double().clamp(1e-6, 1 - 1e-6)
    fair = (odd - 0.5).abs() < 1e-6
    constant = torch.where(fair, 0.25, (1 - 2 * odd) / (2 * ((1 - odd) / odd).log()))
    return (bits - chance) / constant.sqrt()


# -- comparisons ----------------------------------------------------------------------------------------------


def means(features: Features) -> Iterator[Statistic]:
    """Of each feature: in all, in each image, group, kind and slot, and each kind of these."""
    names = features.names[: features.asked]
    numbers = features.numbers[..., : features.asked]
    for of, axes in (("kind", ()), *((AXES[axis], (axis,)) for axis in (IMAGE, GROUP, SLOT))):
        rows = _rows(numbers, *axes, KIND)
        found = rows.sum(-1) / math.sqrt(rows.shape[-1])
        yield _largest(found, _told(f"the {{name}} by {of}, and their mean", names))


def any_two(features: Features, axes: tuple[int, ...] = (IMAGE, GROUP, SLOT)) -> Iterator[Statistic]:
    """Any two features of a query or of the two of a box; then of any two places along an axis, at any distance."""
    yield _pairs(_rows(features.numbers, KIND), features, "kind")
    for axis in axes:
        yield _pairs(_rows(features.numbers, axis, KIND), features, AXES[axis])


def two_calls(first: Features, second: Features) -> Iterator[Statistic]:
    """Any feature at a place in one call and any feature at any place in the other, along each axis."""
    for axis in (IMAGE, GROUP, SLOT):
        one, other = (_rows(each.numbers, axis, KIND) for each in (first, second))
        found = one @ other.T / other.norm(dim=1)
        yield _largest(found, _told(f"features by {AXES[axis]} of two calls"))


def patterns(signs: Tensor, where: str) -> Iterator[Statistic]:
    """(sample, n) signs: the product of any of them is as often 1 as -1; of four signs so are all 16 patterns."""
    sample, number = signs.shape
    products = torch.ones(sample, 1, dtype=signs.dtype)
    for one in range(number):
        products = torch.cat((products, products * signs[:, one : one + 1]), 1)
    found = products[:, 1:].sum(0) / math.sqrt(sample)
    yield _largest(found, lambda place: f"signs number {_bits(place + 1)} of {where}")


def turns(features: Features) -> Iterator[Statistic]:
    """Lengths as angles: any sum and difference of the four of a query is any angle as often as another.

    Were one length made of the three others, modulo the range, no two of them would show it.
    """
    shares = features.numbers[..., 4:8] / math.sqrt(12) + 0.5
    signs = torch.tensor([each for each in product((0, 1, -1), repeat=4) if any(each)], dtype=shares.dtype)
    for kind, what in enumerate(KINDS):
        angles = 2 * math.pi * shares[:, :, kind].flatten(0, 2) @ signs[: len(signs) // 2 + 1].T
        for wave in (torch.cos, torch.sin):
            found = math.sqrt(2) * wave(angles).sum(0) / math.sqrt(len(angles))
            yield _largest(
                found, _told(f"lengths of {what}s, {{name}} times", [str(each) for each in signs.int().tolist()])
            )


def three_groups(features: Features) -> Iterator[Statistic]:
    """The product of a feature in two groups and the same in a third."""
    rows = _rows(features.numbers, GROUP)
    groups, names = features.numbers.shape[GROUP], features.names
    for which, name in enumerate(names[: features.asked]):
        own = rows.view(groups, len(names), -1)[:, which]
        one, other = torch.triu_indices(groups, groups, 1)
        products = own[one] * own[other]
        found = products @ own.T / products.norm(dim=1)[:, None].clamp(min=1e-12)
        found[torch.arange(len(one)), one], found[torch.arange(len(one)), other] = 0.0, 0.0
        yield _largest(found, _told(f"the {name} of three groups"))


def any_distance(features: Features) -> Iterator[Statistic]:
    """Of each feature: a number and the one so many places later in the order of memory, for every distance.

    A sum of x[i] x[i + d] is a martingale with the same bound, but that the sum of x^2 stands for its mean.
    """
    for which, name in enumerate(features.names[: features.asked]):
        stream = features.numbers[..., which].flatten()
        size = len(stream)
        spectrum = torch.fft.rfft(stream, 2 * size)
        found = torch.fft.irfft(spectrum.abs().square(), 2 * size)[1 : size - 200]
        found = found / (size - torch.arange(1, size - 200)).sqrt() / float(stream.square().mean())
        yield _largest(found, _told(f"the {name} {{number}} queries apart"))


def _rows(numbers: Tensor, *axes: int) -> Tensor:
    """(row, number): a row for each place along these axes and each feature."""
    last = numbers.ndim - 1
    others = [axis for axis in range(last) if axis not in axes]
    return numbers.permute(*axes, last, *others).reshape(math.prod(numbers.shape[a] for a in (*axes, last)), -1)


def _pairs(rows: Tensor, features: Features, axis: str) -> Statistic:
    number, names, asked = len(rows), features.names, torch.arange(len(features.names)) < features.asked
    query, feature = torch.arange(number) // len(names), torch.arange(number) % len(names)
    source = query * (max(features.sources) + 1) + torch.tensor(features.sources)[feature]
    compared = ((source[:, None] != source) & (asked[feature][:, None] | asked[feature])).triu(1)
    found = (rows @ rows.T / rows.norm(dim=1)).masked_fill_(~compared, 0.0)

    def told(place: int) -> str:
        each = (f"the {names[row % len(names)]} of {_place(row // len(names), axis)}" for row in divmod(place, number))
        return " and ".join(each)

    return _largest(found, told, int(compared.sum()))


def _place(row: int, axis: str) -> str:
    """A row for each kind, within a row for each place along the axis."""
    return f"{KINDS[row % 2]}s" if axis == "kind" else f"{KINDS[row % 2]}s of {axis} {row // 2}"


def _told(text: str, names: Sequence[str] = ("",)) -> Callable[[int], str]:
    """What the statistic at a place is about; names follow each other again and again."""
    return lambda place: text.format(name=names[place % len(names)], number=place + 1)


def _largest(found: Tensor, told: Callable[[int], str], comparisons: int | None = None) -> Statistic:
    place = int(found.abs().argmax())
    return Statistic(comparisons or found.numel(), float(found.abs().max()), told(place))


def _bits(number: int) -> list[int]:
    return [place for place in range(number.bit_length()) if number >> place & 1]
