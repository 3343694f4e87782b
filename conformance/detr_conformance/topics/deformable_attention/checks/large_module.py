"""How large calls of the module are judged: by the oracle on some queries, the others having no incoming gradient.

Every query is a computation of its own, so that output and gradients at these queries are those of a call with them
alone. So are the gradients of the value and of the parameters, which mix queries, as the others send nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.harness.block import expectations, forward, run
from detr_conformance.harness.case import Case
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.deformable_attention.checks.large import silent_elsewhere, telling_queries

OF_QUERIES = ("query", "identity", "query_pos", "reference_points", "grad_output")


def judge_large_module(subject: Subject, case: Case, most: int = 24) -> None:
    """Output and gradients of a large call lie within their limits, as far as the head of this file says."""
    queries = case["query"].shape[1]
    chosen = telling_queries(queries, most, case.note)
    right = expectations(subject, _of_queries(case, chosen), backward=subject.backward).copy()
    output = right.pop("output")
    if not subject.backward:
        _compare(subject, "output", forward(subject, case)[:, chosen], output)
        return
    result = run(subject, silent_elsewhere(case, chosen))
    _compare(subject, "output", result.output[:, chosen], output)
    expect(bool(result.output.isfinite().all()), "output has numbers that are not finite")
    whole = {name: _spread(want, chosen, queries) if name in OF_QUERIES else want for name, want in right.items()}
    if "value" not in case.tensors:
        of_query, of_value = whole["query"], whole.pop("value")
        whole["query"] = Expectation(of_query.expected + of_value.expected, of_query.limit + of_value.limit)
    for name, want in whole.items():
        _compare(subject, f"grad_{name}", subject.gradient(name, result.gradients), want)


def _of_queries(case: Case, chosen: Tensor) -> Case:
    """The same call with these queries alone, and the value given."""
    several = {name: case[name][:, chosen] for name in OF_QUERIES if name in case.tensors}
    return case.having(value=case.tensors.get("value", case["query"]), **several)


def _spread(want: Expectation, chosen: Tensor, queries: int) -> Expectation:
    """The same for all queries: the others have no gradient at all."""
    expected = want.expected.new_zeros(want.expected.shape[0], queries, *want.expected.shape[2:])
    limit = torch.zeros_like(expected)
    expected[:, chosen], limit[:, chosen] = want.expected, want.limit
    return Expectation(expected, limit)


def _compare(subject: Subject, name: str, got: Tensor, right: Expectation) -> None:
    subject.compare(name, got, right.expected, right.limit)
