"""Modes of `ms_deform_attn`: no gradients, autocast, capture, export; errors. Clauses: MSDA-53 to MSDA-57."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from detr_conformance.harness.case import Case
from detr_conformance.harness.exporting import captured, exported
from detr_conformance.harness.mismatch import Mismatch, expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.deformable_attention.cases.core import (
    TURNED,
    Structure,
    case_at,
    constant,
    drawn_cases,
    everywhere,
    inside,
    structure_of,
)
from detr_conformance.topics.deformable_attention.checks.agreement import GRADIENTS, agrees, check_output, whole
from detr_conformance.topics.deformable_attention.checks.oracle import Rounding, expectations

OPERATION = "ms_deform_attn"


# -- modes --------------------------------------------------------------------------------------------------


@covers("MSDA-53", cases=lambda subject: drawn_cases(subject, inside), share=0.3, any_call=True, plain=agrees)
def test_without_gradients(subject: Subject, case: Case) -> None:
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            arguments = subject.arguments(case)
            if mode is torch.no_grad and subject.backward:
                arguments["value"].requires_grad_()
            output = subject.call(arguments)
            expect(not output.requires_grad, f"under {mode.__name__} the output asks for gradients")
            check_output(subject, output, case)


def under_autocast(subject: Subject) -> Iterator[Case]:
    """An ordinary case; and single samples of constant maps, whose error is that of one weight and one value."""
    yield case_at(subject, Structure(), inside, note="autocast")
    s = Structure(((2, 3),), queries=30, points=1)
    yield case_at(subject, s, inside, value=constant, note="autocast, constant map")


@covers(
    "MSDA-54",
    cases=under_autocast,
    feature="autocast",
    dtypes=("float32",),
    plain=whole,
)
def test_autocast(subject: Subject, case: Case) -> None:
    arguments = subject.arguments(case)
    inputs = {name: arguments[name].requires_grad_() for name in GRADIENTS if subject.backward}
    with torch.autocast(subject.device, dtype=torch.bfloat16):
        output = subject.call(arguments)
    right = expectations(case, Rounding.coarse("bfloat16"))
    subject.compare("output", output, right["output"].expected, right["output"].limit)
    if subject.backward:
        gradients = subject.pull_back(output, case["grad_output"].to(output), inputs)
        for name in GRADIENTS:
            gradient, want = subject.gradient(name, gradients), right[f"grad_{name}"]
            expect(gradient.dtype == torch.float32, f"grad_{name} has dtype {gradient.dtype}, expected float32")
            subject.compare(f"grad_{name}", gradient, want.expected, want.limit, want.interval)


@covers(
    "MSDA-55",
    cases=lambda subject: [case_at(subject, Structure(), everywhere, note="compiled")],
    feature="compile",
    once=True,
    plain=whole,
)
def test_captured_whole(subject: Subject, case: Case) -> None:
    agrees(subject, case)  # an eager call first: imports on the first call are not part of the graph
    backend = "eager" if subject.settings.profile == "smoke" else "aot_eager"
    compiled = subject.replacing(captured(subject.implementation, backend))
    whole(compiled, case)
    whole(compiled, case_at(subject, structure_of(case), inside, note="compiled, other contents"))
    whole(compiled, case_at(subject, TURNED, inside, note="compiled, levels turned"))
    subject.absorb(compiled)


@covers(
    "MSDA-56",
    cases=lambda subject: [case_at(subject, Structure(), everywhere, note="exported")],
    feature="export",
    once=True,
    plain=whole,
)
def test_exported_whole(subject: Subject, case: Case) -> None:
    agrees(subject, case)  # an eager call first: what it remembers must not end up in the program
    arguments = tuple(subject.arguments(case).values())
    program = subject.replacing(exported(subject.implementation, arguments))
    agrees(program, case)
    agrees(program, case_at(subject, structure_of(case), inside, note="exported, other contents"))
    agrees(program, case_at(subject, TURNED, inside, note="exported, levels turned"))
    subject.absorb(program)


# -- errors -------------------------------------------------------------------------------------------------


def disagreeing(subject: Subject) -> Iterator[Case]:
    """Arguments that disagree, each in a way that reads nothing out of bounds if it is not noticed."""
    case = case_at(subject, Structure(), inside, note="well formed")
    value, weights = case["value"], case["attention_weights"]
    yield Case({**case.tensors, "value": torch.cat((value, value[:, :4]), 1)}, note="S is not the sum of H * W")
    fewer = case["sampling_locations"][:, :, :, :1], weights[:, :, :, :1]
    yield Case(
        {**case.tensors, "sampling_locations": fewer[0], "attention_weights": fewer[1]},
        note="locations for one level, shapes for two",
    )
    yield Case(
        {**case.tensors, "attention_weights": torch.cat((weights, weights), -1)},
        note="weights for twice P points",
    )
    yield Case({**case.tensors, "attention_weights": weights[..., :1]}, note="weights for one of P points")
    turned = weights.transpose(3, 4).contiguous()
    yield Case(
        {**case.tensors, "attention_weights": turned}, note="weights by point and level, locations by level and point"
    )


@covers("MSDA-57", cases=disagreeing, once=True)
def test_disagreeing_arguments_raise(subject: Subject, case: Case) -> None:
    arguments = subject.arguments(case)
    try:
        subject.implementation(*arguments.values())
    except Exception:
        return
    raise Mismatch(f"no error, although {case.note}", expected="an exception", got="a result")
