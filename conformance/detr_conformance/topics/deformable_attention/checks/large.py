"""How large calls are judged: by the oracle on some queries, and by what holds for all of them together.

Every query is a computation of its own, so that the oracle is as strict on a few hundred of them as on all. The
gradient of the value mixes queries. In half dtypes it is asked for with an incoming gradient that is zero but at these
queries, where the oracle has every element; in the others with a dense one, where the operation's linearity in the
value gives an equation for each image, head and channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.harness.case import Case, mixed_seed
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Result, Subject
from detr_conformance.topics.deformable_attention.checks.agreement import rounding_of
from detr_conformance.topics.deformable_attention.checks.oracle import expectations

TILES = tuple(1 << power for power in range(3, 11))
MANY, FEW = 80, 40  # queries of each image that the oracle judges


def telling_queries(queries: int, most: int, *seed: object) -> Tensor:
    """Of each size of tile the first and last query of the first, the last, the incomplete and some other tiles; and
    some queries at random. All of them if there are not many."""
    if queries <= most:
        return torch.arange(queries)
    generator = torch.Generator().manual_seed(mixed_seed("queries", queries, *seed))
    chosen = [torch.randint(queries, (most // 3,), generator=generator)]
    for tile in (tile for tile in TILES if tile <= queries):
        whole = queries // tile
        tiles = torch.cat(
            (
                torch.tensor((0, whole - 1, whole)),
                torch.randint(whole, (max(0, most // (3 * len(TILES)) - 3),), generator=generator),
            )
        )
        chosen += [tiles * tile, tiles * tile + tile - 1]
    return torch.cat(chosen).clamp(max=queries - 1).unique()


def of_queries(case: Case, chosen: Tensor) -> Case:
    """The same call with these queries alone."""
    names = ("sampling_locations", "attention_weights", "grad_output")
    return case.having(**{name: case[name][:, chosen] for name in names})


def silent_elsewhere(case: Case, chosen: Tensor) -> Case:
    """The same call with an incoming gradient that is zero but at these queries."""
    grad_output = torch.zeros_like(case["grad_output"])
    grad_output[:, chosen] = case["grad_output"][:, chosen]
    return case.having(grad_output=grad_output)


def judge_large(subject: Subject, case: Case, most: int = FEW) -> None:
    """Output and gradients of a large call lie within their limits, as far as the head of this file says."""
    queries = case["sampling_locations"].shape[1]
    chosen = telling_queries(queries, most, case.note)
    right = expectations(of_queries(case, chosen), rounding_of(subject), subject.backward)
    if not subject.backward:
        _at(subject, "output", subject.forward(case), chosen, right["output"])
        return
    whole = len(chosen) == queries
    silent = not whole and subject.torch_dtype.itemsize == 2  # linearity shows little in half
    result = subject.run(silent_elsewhere(case, chosen) if silent else case)
    _at_chosen(subject, result, chosen, right)
    if silent:
        _zero_elsewhere(subject, result, chosen)
    if whole or silent:
        _compare(subject, "grad_value", subject.gradient("value", result.gradients), right["grad_value"])
    else:
        _linear_in_value(subject, case, result, chosen, right)


def _at_chosen(subject: Subject, result: Result, chosen: Tensor, right: dict[str, Expectation]) -> None:
    _at(subject, "output", result.output, chosen, right["output"])
    for name in ("sampling_locations", "attention_weights"):
        _at(subject, f"grad_{name}", subject.gradient(name, result.gradients), chosen, right[f"grad_{name}"])


def _at(subject: Subject, name: str, got: Tensor, chosen: Tensor, right: Expectation) -> None:
    """Compares the chosen queries; of the others it is only asked that they are finite."""
    expected = got.detach().cpu().double().clone()
    expect(bool(expected.isfinite().all()), f"{name} has numbers that are not finite")
    limit = torch.zeros_like(expected)
    interval = None if right.interval is None else torch.stack((expected, expected))
    expected[:, chosen], limit[:, chosen] = right.expected, right.limit
    if interval is not None and right.interval is not None:
        interval[:, :, chosen] = right.interval
    _compare(subject, name, got, Expectation(expected, limit, interval))


def _compare(subject: Subject, name: str, got: Tensor, right: Expectation) -> None:
    subject.compare(name, got, right.expected, right.limit, right.interval)


def _zero_elsewhere(subject: Subject, result: Result, chosen: Tensor) -> None:
    """A query whose output nobody asks about has no gradient."""
    for name in ("sampling_locations", "attention_weights"):
        gradient = subject.gradient(name, result.gradients).detach().cpu().clone()
        gradient[:, chosen] = 0
        subject.compare_exactly(
            f"grad_{name} of queries without incoming gradient", gradient, gradient.new_zeros(()).expand_as(gradient)
        )


def _linear_in_value(
    subject: Subject, case: Case, result: Result, chosen: Tensor, right: dict[str, Expectation]
) -> None:
    """sum over cells of value * grad_value = sum over queries of grad_output * output, for each image, head and channel

    The output is linear in the value, so a contribution that is lost, or counted twice, stands out by its own size. The
    limit is that of sums of independent errors as large as the limits of their elements.
    """
    value = case["value"].double()
    grad_value = subject.gradient("value", result.gradients).detach().cpu().double()
    shape = (value.shape[0], -1, *value.shape[2:])
    grad_output, output = (t.detach().cpu().double().view(shape) for t in (case["grad_output"], result.output))
    share = len(chosen) / grad_output.shape[1]
    of_output = right["output"].limit.view(shape).square().mean(1, keepdim=True).sqrt()
    of_value = right["grad_value"].limit / share
    walked = (grad_output * of_output).square().sum(1).sqrt() + (value * of_value).square().sum(1).sqrt()
    expected = (grad_output * output).sum(1)
    subject.compare("sum of value * grad_value", (value * grad_value).sum(1), expected, 4 * walked)
