"""Memory and state of `ms_deform_attn`: strides, aliases, caches, determinism. Clauses: MSDA-44 to MSDA-49."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy
import torch

from detr_conformance.harness.case import LAYOUTS, Case
from detr_conformance.harness.mismatch import expect, require
from detr_conformance.harness.subject import Subject, explained
from detr_conformance.harness.suite_test import covers
from detr_conformance.isolation import ambient
from detr_conformance.topics.deformable_attention.cases.core import (
    TURNED,
    Structure,
    case_at,
    drawn_cases,
    everywhere,
    inside,
    one_cell,
    outside,
    structure_of,
)
from detr_conformance.topics.deformable_attention.checks.agreement import (
    GRADIENTS,
    check_gradients,
    check_output,
    gradients_agree,
    share_memory,
    whole,
)

OPERATION = "ms_deform_attn"


@covers("MSDA-44", cases=lambda subject: drawn_cases(subject, inside, layouts=LAYOUTS[1:]), share=0.6, plain=whole)
def test_any_strides(subject: Subject, case: Case) -> None:
    whole(subject, case)


@covers("MSDA-44", cases=lambda subject: [case_at(subject, Structure(), inside, note="expanded")], plain=whole)
def test_expanded_arguments(subject: Subject, case: Case) -> None:
    """Stride zero: one map for all images, one set of locations and weights for all queries."""
    shared = {"value": 0, "sampling_locations": 1, "attention_weights": 1}  # the axis along which all is the same
    for name, axis in shared.items():
        expanded = case[name].narrow(axis, 0, 1).to(subject.device).expand_as(case[name])
        require(expanded.stride(axis) == 0, "nothing is expanded")
        output = subject.call({**subject.arguments(case), name: expanded})
        check_output(subject, output, case.having(**{name: expanded.cpu().contiguous()}))


@covers("MSDA-45", cases=lambda subject: drawn_cases(subject), share=0.3, any_call=True, plain=whole)
def test_arguments_are_left_alone(subject: Subject, case: Case) -> None:
    """`Subject.call` and `Subject.pull_back` compare every argument byte for byte."""
    with torch.no_grad():
        subject.forward(case)
    check_output(subject, subject.forward(case), case)
    if subject.backward:
        gradients_agree(subject, case)


@covers(
    "MSDA-46", cases=lambda subject: [case_at(subject, Structure(), inside, note="output")], any_call=True, plain=whole
)
def test_the_output_is_the_callers(subject: Subject, case: Case) -> None:
    arguments = subject.arguments(case)
    first = subject.call(arguments)
    shared = [name for name, tensor in arguments.items() if share_memory(first, tensor)]
    expect(not shared, f"the output shares memory with {', '.join(shared)}", where="output")
    other = case_at(subject, structure_of(case), inside, note="a later call")
    second = subject.forward(other)  # `Subject.call` also verifies that the first output has not changed
    expect(not share_memory(first, second), "two calls returned the same memory", where="output")
    check_output(subject, first, case)
    if subject.backward:
        arguments = subject.arguments(case)
        inputs = {name: arguments[name].requires_grad_() for name in GRADIENTS}
        output = subject.call(arguments)
        with explained("modifying the output in place"):
            output.add_(1)
        subject.drop_held()
        check_gradients(subject, subject.pull_back(output, case["grad_output"].to(subject.device), inputs), case)


def pairs(subject: Subject) -> Iterator[Case]:
    yield case_at(subject, Structure(), inside, note="first contents")


@covers("MSDA-47", cases=pairs, plain=whole)
def test_no_memory_of_earlier_contents(subject: Subject, case: Case) -> None:
    """New contents in the same storage; then the same number of cells in levels of another shape."""
    arguments = subject.arguments(case)
    check_output(subject, subject.call(arguments), case)
    other = case_at(subject, structure_of(case), inside, "second", note="second contents")
    for name, tensor in arguments.items():
        tensor.copy_(other[name])
    check_output(subject, subject.call(arguments), other)
    turned = case_at(subject, TURNED, inside, note="levels turned")
    for name, tensor in arguments.items():
        tensor.copy_(turned[name])
    check_output(subject, subject.call(arguments), turned)


@covers("MSDA-47", cases=lambda subject: [case_at(subject, Structure(), where) for where in (outside, everywhere)])
def test_no_uninitialised_memory(subject: Subject, case: Case) -> None:
    """torch fills new memory with NaN in this mode."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("warn")
    try:
        whole(subject, case)
    finally:
        torch.set_deterministic_debug_mode(before)


def contention(subject: Subject) -> Iterator[Case]:
    s = Structure(((4, 5), (3, 2)), queries=600, heads=2, channels=8, points=4, batch=1)
    yield case_at(subject, s, one_cell, note="all samples on one cell")


@covers("MSDA-48", cases=contention, feature="deterministic", plain=whole)
def test_deterministic(subject: Subject, case: Case) -> None:
    results = [subject.run(case) if subject.backward else None for _ in range(3)]
    outputs = [subject.forward(case) for _ in range(3)]
    for again in outputs[1:]:
        subject.compare_exactly("output of the second call", again, outputs[0])
    check_output(subject, outputs[0], case)
    first = results[0]
    for result in results[1:]:
        if result is not None and first is not None:
            for name in GRADIENTS:
                again, before = (subject.gradient(name, r.gradients) for r in (result, first))
                subject.compare_exactly(f"grad_{name} of the second call", again, before)


GLOBAL_STATE: dict[str, Callable[[], object]] = {
    "the default dtype": torch.get_default_dtype,
    "grad mode": torch.is_grad_enabled,
    "the number of threads": torch.get_num_threads,
    "the deterministic mode": torch.get_deterministic_debug_mode,
    "the float32 matmul precision": torch.get_float32_matmul_precision,
    "autocast": lambda: torch.is_autocast_enabled("cpu"),
    "torch's random state": lambda: torch.get_rng_state().tolist(),
    "Python's random state": random.getstate,
    "NumPy's random state": lambda: repr(numpy.random.get_state()),  # noqa: NPY002
    "anomaly detection": torch.is_anomaly_enabled,
    "the flushing of subnormal numbers": ambient.flushes_subnormals,
}


@covers(
    "MSDA-49", cases=lambda subject: [case_at(subject, Structure(), inside, note="state")], any_call=True, plain=whole
)
def test_no_side_effects(subject: Subject, case: Case) -> None:
    before = {name: read() for name, read in GLOBAL_STATE.items()}
    try:
        subject.run(case) if subject.backward else subject.forward(case)
        with torch.no_grad():
            subject.forward(case)
    finally:
        after = {name: read() for name, read in GLOBAL_STATE.items()}
        torch.set_num_threads(before["the number of threads"])  # type: ignore[arg-type]
        torch.set_deterministic_debug_mode(int(str(before["the deterministic mode"])))
        torch.set_float32_matmul_precision(str(before["the float32 matmul precision"]))
        torch.set_flush_denormal(bool(before["the flushing of subnormal numbers"]))
    for name, value in before.items():
        expect(after[name] == value, f"the call changed {name}", where=name)
    whole(subject, case)
