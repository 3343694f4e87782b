"""Dropout inside a stack of layers, judged by its outcomes: one sublayer at a time adds anything to the stream.

All that sublayers add is a constant in two channels, so that what a token becomes is one of four: both dropped, either,
or none, the rest scaled. The others add zeros, which no dropout changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detr_conformance.harness.block import expectations, forward, in_training, make, parts, seeded
from detr_conformance.harness.block_case import inputs_of, parameters_of, reference_callable, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.dropping import Outcome, each_by_itself, is_one_of
from detr_conformance.harness.mismatch import expect, require
from detr_conformance.harness.subject import Subject
from detr_conformance.operations import OPERATIONS
from detr_conformance.topics.every_block.cases.images import SHARED

OUTGOING = re.compile(r"(attentions\.\d+\.(out_proj|output_proj)|ffns\.\d+\.layers\.1)\.(weight|bias)$")
CONSTANTS = (2.0, -1.5)  # of the two channels
IMAGES = 40
Numbers = dict[str, Tensor]
Tokens = Callable[[Mapping[str, Tensor]], Tensor]


class Site(NamedTuple):
    """A sublayer whose dropout is looked at.

    Attributes:
        name: where it is among the parameters, such as "layers.0.ffns.0".
        twice: what it adds has passed another dropout before: of hidden channels, or of attention weights.
    """

    name: str
    twice: bool = False


Factors = tuple[float, float]


def law(rate: float, twice: bool) -> list[tuple[Factors, float]]:
    """What two channels are multiplied by, and how often. The first dropout, if there are two, drops both at once."""
    keep = 1 - rate
    inner = keep if twice else 1.0
    found = []
    for kept in product((0, 1), repeat=2):
        share = inner * keep ** sum(kept) * rate ** (2 - sum(kept))
        if not any(kept):
            share += 1 - inner
        first, second = (each / (keep * inner) for each in kept)
        found.append(((first, second), share))
    return found


def adding(case: Case, site: Site, factors: Factors = (1.0, 1.0), spared: Sequence[str] = ()) -> Case:
    """The case in which the site alone adds something, times these factors; parameters that are spared stay."""
    own = parameters_of(case)
    changes = {name: torch.zeros_like(t) for name, t in own.items() if OUTGOING.search(name) and name not in spared}
    changes |= _constant(own, site, factors)
    return with_parameters(case, **{name.replace(".", "__"): tensor for name, tensor in changes.items()})


def _constant(own: Numbers, site: Site, factors: Factors) -> Numbers:
    scaled = torch.tensor([constant * factor for constant, factor in zip(CONSTANTS, factors, strict=True)])
    if "ffns" not in site.name:
        projection = next(name for name in own if name.startswith(f"{site.name}.") and OUTGOING.search(name))
        bias = f"{projection.rpartition('.')[0]}.bias"
        return {bias: _first(own[bias], scaled)}
    weight, bias = f"{site.name}.layers.1.weight", f"{site.name}.layers.1.bias"
    if not site.twice:
        return {bias: _first(own[bias], scaled)}
    hidden = f"{site.name}.layers.0.0"
    column = torch.zeros_like(own[weight])
    column[:2, 0] = scaled
    return {
        weight: column,
        f"{hidden}.weight": torch.zeros_like(own[f"{hidden}.weight"]),
        f"{hidden}.bias": _first(own[f"{hidden}.bias"], torch.ones(1)),
    }


def _first(like: Tensor, values: Tensor) -> Tensor:
    """Zeros, but for the first entries."""
    found = torch.zeros_like(like)
    found[: len(values)] = values.to(like)
    return found


def many_times(operation: str, case: Case, images: int) -> Case:
    """The one image of the case so many times."""
    own = {name: t for name, t in inputs_of(operation, case).items() if name not in (*SHARED, "attn_mask")}
    repeated = {name: tensor.repeat(images, *[1] * (tensor.ndim - 1)) for name, tensor in own.items()}
    assert case.shapes is not None
    axis = OPERATIONS[operation].image_axis
    shapes = {n: _with_images(shape, 0 if n.startswith("enc_") else axis, images) for n, shape in case.shapes.items()}
    total = sum(prod(shape) for shape in shapes.values())
    return replace(case.having(**repeated, grad_output=torch.zeros(total)), shapes=shapes)


def _with_images(shape: tuple[int, ...], axis: int, images: int) -> tuple[int, ...]:
    return (*shape[:axis], images * shape[axis], *shape[axis + 1 :])


def outcomes_of(
    subject: Subject, cases: Sequence[tuple[Case, str, float]], tokens: Tokens, images: int
) -> list[Outcome]:
    """What the reference makes of each of these cases of one image, for so many of them; outcomes lie far apart, and
    the widest limit serves for all."""
    found = []
    usual = cases[-1][0]
    widest = 4 * tokens(parts(usual, expectations(subject, usual, backward=False)["output"].limit)).amax()
    for case, name, share in cases:
        inputs = {n: t.double() if t.is_floating_point() else t for n, t in inputs_of(subject.operation, case).items()}
        made: Callable[..., Any] = reference_callable(subject.operation, case, torch.float64)
        with torch.no_grad():
            expected = tokens(made(**inputs))
        found.append(Outcome(name, expected.expand(images, -1, -1), widest.expand(images, *expected.shape[1:]), share))
    for one, other in pairwise(found):
        apart = (one.expected - other.expected).abs() > one.limit + other.limit
        require(apart.any(-1).all(), f"{one.name} and {other.name} look alike")
    return found


def obeys(subject: Subject, many: Case, outcomes: Sequence[Outcome], tokens: Tokens) -> list[Tensor]:
    """Two training calls of one module: each token is one of the outcomes, and the calls drop other ones.

    Returns:
        Which tokens of the first call each outcome has.
    """
    module = in_training(make(subject, many))
    subject.shapes = many.shapes
    with seeded(subject), torch.no_grad():
        calls = [tokens(parts(many, forward(subject, many, module).cpu())).double() for _ in range(2)]
    first, second = (is_one_of(call, outcomes, token_wise=True) for call in calls)
    same = all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    expect(not same, "two training calls drop the same", where="output", expected="other tokens", got="the same")
    if first[0].shape[1] > 1:
        each_by_itself(first, outcomes)
    return first


def named(factors: Factors) -> str:
    """In words."""
    return {(False, False): "dropped", (True, True): "kept"}.get(
        (factors[0] > 0, factors[1] > 0), f"kept in channel {0 if factors[0] else 1} alone"
    )


def queries_of(found: Mapping[str, Tensor]) -> Tensor:
    """(batch, query, numbers): all that (layer, batch, query, ...) outputs say of a query."""
    return torch.cat([t.movedim(0, 2).flatten(2) for name, t in found.items() if not name.startswith("enc_")], -1)


def drops_what_it_adds(subject: Subject, case: Case, site: Site, rate: float) -> None:
    """The site's dropout follows the law for every query of a decoder by itself."""
    cases = [(adding(case, site, factors), named(factors), share) for factors, share in law(rate, site.twice)]
    many = many_times(subject.operation, adding(case, site), IMAGES)
    obeys(subject, many, outcomes_of(subject, cases, queries_of, IMAGES), queries_of)
