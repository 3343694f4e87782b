"""How `ms_deform_attn` may be called: sizes, memory, state, modes, errors. Clauses: spec chapter 1, from MSDA-42 on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy
import torch
from torch import Tensor, nn

from detr_conformance.harness.case import LAYOUTS, Case, LazyCases
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import Mismatch, expect, require
from detr_conformance.harness.subject import Subject, explained
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.deformable_attention.cases.core import (
    Structure,
    case_at,
    constant,
    drawn_cases,
    everywhere,
    inside,
    make_case,
    one_cell,
    outside,
    structure_of,
)
from detr_conformance.topics.deformable_attention.checks import (
    GRADIENTS,
    agrees,
    check_gradients,
    check_output,
    gradients_agree,
)
from detr_conformance.topics.deformable_attention.oracle import Rounding, expectations

OPERATION = "ms_deform_attn"

# As many cells as Structure() has, in levels of another shape: every tensor keeps its shape.
TURNED = Structure(((7, 5), (4, 3)))


def whole(subject: Subject, case: Case) -> None:
    """Output and gradients lie within their limits; the gradients where the target has them."""
    if not subject.backward:
        agrees(subject, case)
        return
    result = subject.run(case)
    check_output(subject, result.output, case)
    check_gradients(subject, result.gradients, case)


# -- sizes --------------------------------------------------------------------------------------------------


def nothing_to_do(subject: Subject) -> Iterator[Case]:
    fill = Filler(subject.dtype, "empty")
    for sizes in ({"batch": 0}, {"queries": 0}):
        s = Structure(**sizes)  # type: ignore[arg-type]
        name = next(iter(sizes))
        yield make_case(fill, s, locations=fill.uniform(0, 1, *s.samples, 2), note=f"{name}: 0")


@covers("MSDA-42", cases=nothing_to_do)
def test_nothing_to_do(subject: Subject, case: Case) -> None:
    s = structure_of(case)
    expected = torch.zeros(s.batch, s.queries, s.heads * s.channels)
    subject.compare_exactly("output", subject.forward(case), expected)
    if subject.backward:
        gradients = subject.run(case).gradients
        for name in GRADIENTS:
            subject.compare_exactly(f"grad_{name}", subject.gradient(name, gradients), torch.zeros(case[name].shape))


def empty_levels(subject: Subject) -> Iterator[Case]:
    for levels in (((4, 8), (0, 5), (2, 2)), ((3, 0), (4, 8))):
        fill = Filler(subject.dtype, "empty level", levels)
        s = Structure(levels)
        yield make_case(fill, s, locations=fill.uniform(-0.1, 1.1, *s.samples, 2), note="a level without cells")


@covers("MSDA-43", cases=empty_levels)
def test_empty_levels(subject: Subject, case: Case) -> None:
    whole(subject, case)


def counts(subject: Subject) -> LazyCases:
    small = Structure(((3, 4), (2, 2)), batch=1, queries=2, heads=1, channels=2, points=2)
    structures = [replace(small, batch=batch) for batch in (1, 3, 65, 96)]
    tiles = (1, 2, 31, 32, 33, 63, 65, 100, 127, 129, 257, 1025)
    structures += [replace(small, queries=queries, channels=4) for queries in tiles]
    structures.append(Structure(((3, 4),), batch=1, queries=33_000, heads=2, channels=1, points=1))
    return LazyCases([partial(case_at, subject, s, everywhere, note="counts") for s in structures])


@covers("MSDA-50", cases=counts)
def test_any_batch_and_queries(subject: Subject, case: Case) -> None:
    whole(subject, case)


def sizes(subject: Subject) -> LazyCases:
    base = Structure(((5, 6), (3, 4)), batch=2, queries=5, heads=2, channels=4, points=3)
    vectors = (1, 2, 3, 4, 6, 8, 12, 16, 17, 24, 31, 32, 33, 48, 64, 71, 96, 128, 130, 256)
    structures = [replace(base, channels=channels) for channels in vectors]
    structures += [replace(base, heads=heads) for heads in (1, 3, 5, 7, 8, 12, 16)]
    structures += [replace(base, points=points) for points in (1, 2, 3, 5, 7, 8, 9, 16, 17, 33)]
    for count in (1, 3, 4, 5, 6, 9):
        structures.append(replace(base, levels=tuple((2 + level % 3, 7 - level % 5) for level in range(count))))
    thin: tuple[tuple[tuple[int, int], ...], ...] = (((1, 1),), ((1, 9), (9, 1)), ((64, 2), (1, 50)), ((100, 3),))
    structures += [replace(base, levels=levels) for levels in thin]
    for channels, points, count in ((32, 4, 4), (32, 8, 4), (16, 4, 3), (64, 4, 4), (32, 4, 1)):  # as published
        levels = tuple((9 - 2 * level, 8 - level) for level in range(count))
        structures.append(Structure(levels, 1, 9, 8, channels, points))
    return LazyCases([partial(case_at, subject, s, everywhere, note="sizes") for s in structures])


@covers("MSDA-51", cases=sizes)
def test_any_sizes(subject: Subject, case: Case) -> None:
    whole(subject, case)


# -- memory and state ---------------------------------------------------------------------------------------


@covers("MSDA-44", cases=lambda subject: drawn_cases(subject, inside, layouts=LAYOUTS[1:]), share=0.6)
def test_any_strides(subject: Subject, case: Case) -> None:
    whole(subject, case)


@covers("MSDA-44", cases=lambda subject: [case_at(subject, Structure(), inside, note="expanded")])
def test_expanded_arguments(subject: Subject, case: Case) -> None:
    """Stride zero: one map for all images, one set of locations and weights for all queries."""
    shared = {"value": 0, "sampling_locations": 1, "attention_weights": 1}  # the axis along which all is the same
    for name, axis in shared.items():
        expanded = case[name].narrow(axis, 0, 1).to(subject.device).expand_as(case[name])
        require(expanded.stride(axis) == 0, "nothing is expanded")
        output = subject.call({**subject.arguments(case), name: expanded})
        check_output(subject, output, case.having(**{name: expanded.cpu().contiguous()}))


@covers("MSDA-45", cases=lambda subject: drawn_cases(subject), share=0.3)
def test_arguments_are_left_alone(subject: Subject, case: Case) -> None:
    """`Subject.call` and `Subject.pull_back` compare every argument byte for byte."""
    with torch.no_grad():
        subject.forward(case)
    check_output(subject, subject.forward(case), case)
    if subject.backward:
        gradients_agree(subject, case)


@covers("MSDA-46", cases=lambda subject: [case_at(subject, Structure(), inside, note="output")])
def test_the_output_is_the_callers(subject: Subject, case: Case) -> None:
    arguments = subject.arguments(case)
    first = subject.call(arguments)
    storages = {tensor.untyped_storage().data_ptr(): name for name, tensor in arguments.items()}
    shared = storages.get(first.untyped_storage().data_ptr())
    expect(shared is None, f"the output shares memory with {shared}", where="output")
    other = case_at(subject, structure_of(case), inside, note="a later call")
    second = subject.forward(other)  # `Subject.call` also verifies that the first output has not changed
    expect(
        first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr(),
        "two calls returned the same memory",
        where="output",
    )
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


@covers("MSDA-47", cases=pairs)
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


@covers("MSDA-48", cases=contention, feature="deterministic")
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
}


@covers("MSDA-49", cases=lambda subject: [case_at(subject, Structure(), inside, note="state")])
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
    for name, value in before.items():
        expect(after[name] == value, f"the call changed {name}", where=name)
    whole(subject, case)


# -- modes --------------------------------------------------------------------------------------------------


@covers("MSDA-53", cases=lambda subject: drawn_cases(subject, inside), share=0.3)
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


class _Wrapped(nn.Module):
    """torch.export takes modules."""

    def __init__(self, implementation: Callable[..., Tensor]) -> None:
        super().__init__()
        self.implementation = implementation

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.implementation(*arguments)


@covers(
    "MSDA-55",
    cases=lambda subject: [case_at(subject, Structure(), everywhere, note="compiled")],
    feature="compile",
    once=True,
)
def test_captured_whole(subject: Subject, case: Case) -> None:
    agrees(subject, case)  # an eager call first: imports on the first call are not part of the graph
    torch.compiler.reset()
    backend = "eager" if subject.settings.profile == "smoke" else "aot_eager"
    compiled = torch.compile(subject.implementation, fullgraph=True, backend=backend)
    captured = subject.replacing(compiled)
    whole(captured, case)
    whole(captured, case_at(subject, structure_of(case), inside, note="compiled, other contents"))
    whole(captured, case_at(subject, TURNED, inside, note="compiled, levels turned"))
    subject.absorb(captured)


@covers(
    "MSDA-56",
    cases=lambda subject: [case_at(subject, Structure(), everywhere, note="exported")],
    feature="export",
    once=True,
)
def test_exported_whole(subject: Subject, case: Case) -> None:
    agrees(subject, case)  # an eager call first: what it remembers must not end up in the program
    arguments = tuple(subject.arguments(case).values())
    with torch.no_grad(), explained("torch.export.export"):
        program = torch.export.export(_Wrapped(subject.implementation), arguments).module()
    exported = subject.replacing(program)
    agrees(exported, case)
    agrees(exported, case_at(subject, structure_of(case), inside, note="exported, other contents"))
    agrees(exported, case_at(subject, TURNED, inside, note="exported, levels turned"))
    subject.absorb(exported)


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
