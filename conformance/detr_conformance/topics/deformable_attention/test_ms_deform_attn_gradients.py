"""The gradients of `ms_deform_attn`. Clauses: spec chapter 1, from MSDA-27 to MSDA-41."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import expect, require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import HALF, covers
from detr_conformance.topics.deformable_attention.cases.core import (
    Structure,
    border,
    case_at,
    constant,
    drawn_cases,
    everywhere,
    inside,
    on_kinks,
    one_cell,
    outside,
    signed,
    softmaxed,
    structure_of,
)
from detr_conformance.topics.deformable_attention.cases.dyadic import dyadic_case
from detr_conformance.topics.deformable_attention.checks.agreement import (
    GRADIENTS,
    agrees,
    check_gradients,
    check_output,
    exactly_zero,
    gradients_agree,
    ordinary,
    require_smooth,
    rounding_of,
    whole,
)
from detr_conformance.topics.deformable_attention.checks.oracle import expectations, oracle

OPERATION = "ms_deform_attn"

gradient_clause = partial(covers, feature="backward")


@gradient_clause("MSDA-27", cases=lambda subject: drawn_cases(subject, inside), share=0.6, plain=agrees)
def test_gradient_of_the_weights(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, ["attention_weights"])


def contended(subject: Subject) -> Iterator[Case]:
    """Every sample of a level on the same four cells; the last case with more than 4,096 queries * heads."""
    for queries, heads, channels in ((40, 2, 5), (129, 3, 8), (2100, 2, 2)):
        s = Structure(((4, 5), (3, 2)), queries=queries, heads=heads, channels=channels, points=2, batch=1)
        yield case_at(subject, s, one_cell, note="all samples on one cell")


@gradient_clause("MSDA-28", cases=contended, plain=agrees)
def test_gradient_of_the_value_accumulates(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, ["value"])


@gradient_clause("MSDA-29", cases=lambda subject: drawn_cases(subject, inside, least=2), share=0.6, plain=agrees)
def test_gradient_of_the_locations(subject: Subject, case: Case) -> None:
    require_smooth(subject, case, 0.5)
    gradients_agree(subject, case, ["sampling_locations"])


@gradient_clause("MSDA-30", cases=lambda subject: drawn_cases(subject, outside, side=12), share=0.6, plain=agrees)
def test_no_gradient_outside(subject: Subject, case: Case) -> None:
    result = subject.run(case)
    for name in GRADIENTS:
        exactly_zero(subject, f"grad_{name}", subject.gradient(name, result.gradients))


@gradient_clause(
    "MSDA-30",
    cases=lambda subject: [
        case_at(subject, Structure(((5, 7), (1, 6), (8, 1)), queries=12), border, seed, note="border")
        for seed in range(3)
    ],
    plain=agrees,
)
def test_gradient_on_the_border(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case)


def some_zero_weights(fill: Filler, s: Structure) -> Tensor:
    return signed(fill, s) * fill.chance(0.5, *s.samples)


def no_weights(fill: Filler, s: Structure) -> Tensor:
    return torch.zeros(s.samples, dtype=torch.float64)


def zero_weights(subject: Subject) -> Iterator[Case]:
    for seed, weights in enumerate((some_zero_weights, some_zero_weights, no_weights)):
        yield case_at(subject, Structure(queries=12), inside, seed, weights=weights, note="zero weights")


@gradient_clause("MSDA-31", cases=zero_weights, plain=agrees)
def test_zero_weight(subject: Subject, case: Case) -> None:
    gradients = subject.run(case).gradients
    check_gradients(subject, gradients, case, ["attention_weights", "value"])
    dead = case["attention_weights"] == 0
    locations = subject.gradient("sampling_locations", gradients)
    exactly_zero(subject, "grad_sampling_locations where the weight is zero", locations[dead.to(locations.device)])
    if dead.all():
        exactly_zero(subject, "grad_value", subject.gradient("value", gradients))


def kinked(subject: Subject) -> Iterator[Case]:
    for seed, levels in enumerate((((4, 8), (8, 2)), ((5, 7), (3, 4)), ((1, 6), (9, 1)))):
        yield case_at(subject, Structure(levels, queries=24), on_kinks, seed, note="whole pixel coordinates")


@gradient_clause("MSDA-32", cases=kinked, plain=agrees)
def test_kinks(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case)


@gradient_clause("MSDA-33", cases=lambda subject: drawn_cases(subject), any_call=True, plain=agrees)
def test_gradient_accuracy(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, precise=True)


def real_layers(subject: Subject) -> Iterator[Case]:
    levels = ((32, 41), (16, 21), (8, 11), (4, 6))
    s = Structure(levels, batch=2, queries=11, heads=8, channels=32, points=4)
    case = case_at(subject, s, everywhere, weights=softmaxed, note="the sizes of a real layer")
    require_smooth(subject, case)
    yield case
    yield case_at(subject, Structure(((2, 334), (190, 3))), inside, note="long rows")


@gradient_clause("MSDA-33", cases=real_layers, plain=agrees)
def test_gradient_accuracy_at_scale(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, precise=True)


def long_accumulations(subject: Subject) -> Iterator[Case]:
    """Thousands of terms of one sign in every gradient of a value, 64 channels in those of weights and locations."""
    positive = {
        "weights": lambda fill, s: fill.uniform(0.5, 1, *s.samples),
        "grad_output": lambda fill, s: fill.uniform(0.5, 1, s.batch, s.queries, s.heads * s.channels),
    }
    s = Structure(((3, 2),), batch=1, queries=1500, heads=1, channels=2, points=2)
    yield case_at(subject, s, one_cell, note="3,000 terms of one sign", **positive)
    s = Structure(((3, 2),), batch=1, queries=1000, heads=2, channels=16, points=2)
    yield case_at(subject, s, one_cell, note="2,000 terms of one sign in 16 channels", **positive)
    s = Structure(((4, 5), (3, 2)), queries=6, heads=2, channels=64, points=2)
    yield case_at(subject, s, inside, note="64 channels")
    yield case_at(subject, s, inside, value=constant, note="64 channels of a constant map")
    s = Structure(((16, 18), (9, 7)), batch=1, queries=70, heads=2, channels=33, points=2)
    yield case_at(subject, s, inside, note="few terms a cell, of many queries")


@gradient_clause("MSDA-34", cases=long_accumulations, dtypes=HALF, plain=agrees)
def test_gradients_accumulate_in_float32(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, precise=True)


def dyadic_gradients(subject: Subject) -> Iterator[Case]:
    for seed, levels in enumerate((((4, 8), (8, 2)), ((1, 8), (2, 2), (8, 4)), ((8, 8),))):
        s = Structure(levels, queries=24, points=3)
        yield dyadic_case(subject, s, seed, fractions=(0.25, 0.5, 0.75), dense=True)


@gradient_clause("MSDA-35", cases=dyadic_gradients, plain=agrees)
def test_exact_gradients(subject: Subject, case: Case) -> None:
    right = oracle(case)
    gradients = subject.run(case).gradients
    for name in GRADIENTS:
        subject.compare_exactly(f"grad_{name}", subject.gradient(name, gradients), right[f"grad_{name}"])


def with_and_without_samples(subject: Subject) -> Iterator[Case]:
    for pixels in (inside, outside):
        yield case_at(subject, Structure(), pixels)


@gradient_clause("MSDA-36", cases=with_and_without_samples, plain=whole)
def test_form_of_the_gradients(subject: Subject, case: Case) -> None:
    gradients = subject.run(case).gradients
    for name in GRADIENTS:
        gradient = subject.gradient(name, gradients)
        for what, got, wanted in (
            ("shape", tuple(gradient.shape), tuple(case[name].shape)),
            ("dtype", gradient.dtype, case[name].dtype),
        ):
            expect(
                got == wanted,
                f"grad_{name} has {what} {got}, its argument {wanted}",
                where=f"grad_{name}.{what}",
                got=str(got),
                expected=str(wanted),
            )
    check_gradients(subject, gradients, case)


@gradient_clause(
    "MSDA-68",
    cases=lambda subject: [case_at(subject, Structure(), inside, note="graph")],
    any_call=True,
    plain=whole,
)
def test_a_graph(subject: Subject, case: Case) -> None:
    """`Subject.pull_back` refuses an output without one."""
    whole(subject, case)


@gradient_clause("MSDA-37", cases=lambda subject: [case_at(subject, Structure(), inside, note="subsets")], plain=whole)
def test_any_subset(subject: Subject, case: Case) -> None:
    for size in (1, 2):
        for wanted in itertools.combinations(GRADIENTS, size):
            check_gradients(subject, subject.run(case, wanted).gradients, case, wanted)


@gradient_clause(
    "MSDA-38", cases=lambda subject: [case_at(subject, Structure(), inside, note="grad_output")], plain=whole
)
def test_any_layout_of_the_incoming_gradient(subject: Subject, case: Case) -> None:
    ones = torch.ones_like(case["grad_output"])
    row = case["grad_output"][:, :1].expand_as(ones)
    layouts = {
        "expanded, as from out.sum()": ones[:1, :1, :1].expand_as(ones),
        "expanded over the queries": row,
        "transposed": case["grad_output"].transpose(0, 2).contiguous().transpose(0, 2),
        "a slice": torch.stack((torch.full_like(ones, torch.nan), case["grad_output"]), -1)[..., 1],
        "a part of a larger tensor": torch.cat((torch.full_like(ones, torch.nan), case["grad_output"]))[len(ones) :],
    }
    for what, grad_output in layouts.items():
        arguments = subject.arguments(case)
        inputs = {name: arguments[name].requires_grad_() for name in GRADIENTS}
        output = subject.call(arguments)
        moved = grad_output.to(subject.device) if subject.device == "cpu" else _like(grad_output, subject.device)
        gradients = subject.pull_back(output, moved, inputs)
        require(not moved.is_contiguous() or moved.storage_offset() > 0, f"the gradient is not {what}")
        check_gradients(subject, gradients, case.having(grad_output=grad_output.contiguous()))


def _like(tensor: Tensor, device: str) -> Tensor:
    """A copy on another device with the same strides."""
    storage = torch.as_strided(tensor, (tensor.untyped_storage().nbytes() // tensor.itemsize,), (1,), 0)
    return torch.as_strided(storage.to(device), tensor.shape, tensor.stride(), tensor.storage_offset())


@gradient_clause(
    "MSDA-39",
    cases=lambda subject: [case_at(subject, Structure(), inside, seed, note="two calls") for seed in range(2)],
    plain=whole,
)
def test_backward_stands_by_itself(subject: Subject, case: Case) -> None:
    other = case_at(subject, structure_of(case), inside, "other", note="the call between")
    calls = []
    for each in (case, other):
        arguments = subject.arguments(each)
        inputs = {name: arguments[name].requires_grad_() for name in GRADIENTS}
        calls.append((each, subject.call(arguments), inputs))
    for each, output, inputs in calls:
        grad_output = each["grad_output"].to(subject.device)
        first = subject.pull_back(output, grad_output, inputs, retain_graph=True)
        again = subject.pull_back(output, grad_output, inputs)
        check_gradients(subject, first, each)
        check_gradients(subject, again, each)


# -- non-finite locations -----------------------------------------------------------------------------------

NON_FINITE = (torch.nan, torch.inf, -torch.inf)


def non_finite(subject: Subject) -> Iterator[Case]:
    """Query 1 of head 0 has one non-finite coordinate in each of its levels."""
    for bad, axis in itertools.product(NON_FINITE, (0, 1)):
        case = case_at(subject, Structure(queries=4), inside, axis, note=f"a location of {bad}")
        locations = case["sampling_locations"].clone()
        locations[:, 1, 0, :, 2, axis] = bad
        yield case.having(sampling_locations=locations)


def _healed(case: Case) -> Case:
    """The same case, the bad samples moved far outside, where they contribute nothing."""
    bad = ~case["sampling_locations"].isfinite()
    return case.having(sampling_locations=case["sampling_locations"].masked_fill(bad.any(-1, keepdim=True), -9.0))


@covers("MSDA-40", cases=non_finite, plain=ordinary)
def test_damage_stays_local(subject: Subject, case: Case) -> None:
    s = structure_of(case)
    healthy = torch.ones(s.batch, s.queries, s.heads, dtype=torch.bool)
    healthy[:, 1, 0] = False
    right = expectations(_healed(case), rounding_of(subject))
    shape = (s.batch, s.queries, s.heads, s.channels)
    result = subject.run(case) if subject.backward else None
    output = (subject.forward(case) if result is None else result.output).view(shape)
    want = right["output"]
    subject.compare(
        "output of the other heads and queries",
        output[healthy],
        want.expected.view(shape)[healthy],
        want.limit.view(shape)[healthy],
    )
    gradients = result.gradients if result is not None else {}
    for name in [name for name in ("attention_weights", "sampling_locations") if name in gradients]:
        want = right[f"grad_{name}"]
        gradient = subject.gradient(name, gradients)[healthy]
        interval = None if want.interval is None else want.interval[:, healthy]
        subject.compare(
            f"grad_{name} of the other heads and queries",
            gradient,
            want.expected[healthy],
            want.limit[healthy],
            interval,
        )


@covers("MSDA-41", cases=non_finite, plain=ordinary)
def test_non_finite_locations_read_nothing(subject: Subject, case: Case) -> None:
    if not subject.backward:
        check_output(subject, subject.forward(case), _healed(case))
        return
    result = subject.run(case)
    check_output(subject, result.output, _healed(case))
    check_gradients(subject, result.gradients, _healed(case))
