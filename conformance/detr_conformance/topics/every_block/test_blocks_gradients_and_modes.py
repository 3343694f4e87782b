"""What every block is held to: gradients, training, autocast, capture, export. Clauses: BLK-9 to BLK-16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance import operations
from detr_conformance.harness.block import (
    agrees,
    calling,
    differentiable,
    expectations,
    forward,
    gradients_agree,
    make,
    parameters_by_name,
    run,
)
from detr_conformance.harness.block_case import inputs_of
from detr_conformance.harness.case import Case, lay_out
from detr_conformance.harness.exporting import captured, exported
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.operations import BLOCKS
from detr_conformance.topics.every_block.cases.images import batches
from detr_conformance.topics.every_block.cases.other_numbers import other_numbers
from detr_conformance.topics.every_block.cases.representative import one, representative
from detr_conformance.topics.every_block.checks import asks_for_gradients, is_module, plain, plain_output

OPERATIONS = BLOCKS


@covers("BLK-9", cases=representative, feature="backward", any_call=True, plain=plain_output)
def test_every_gradient(subject: Subject, case: Case) -> None:
    if not asks_for_gradients(subject, case):
        return
    result = run(subject, case)
    for name, right in expectations(subject, case).items():
        if name != "output":
            gradient = subject.gradient(name, result.gradients)
            expect(gradient.dtype == subject.torch_dtype, f"grad_{name} has dtype {gradient.dtype}", where=name)
            subject.compare(f"grad_{name}", gradient, right.expected, right.limit)


@covers("BLK-34", cases=one, feature="backward", once=True, any_call=True)
def test_a_graph(subject: Subject, case: Case) -> None:
    """`Subject.pull_back` refuses an output without one."""
    made = make(subject, case)
    bound, inputs = calling(subject, made, case)
    arguments = bound.arguments(inputs)
    leaves = {name: t.requires_grad_() for name, t in arguments.items() if differentiable(subject.operation, name, t)}
    if isinstance(made, nn.Module):
        leaves |= {name: parameter for name, parameter in made.named_parameters() if parameter.requires_grad}
    if leaves:
        bound.pull_back(bound.call(arguments), case["grad_output"].to(subject.device), leaves)


@covers("BLK-35", cases=one, feature="backward", once=True)
def test_parameters_by_name(subject: Subject, case: Case) -> None:
    if is_module(subject):
        parameters_by_name(subject.operation, make(subject, case), case)


@covers("BLK-10", cases=one, feature="backward", any_call=True, plain=plain)
def test_any_layout_of_the_incoming_gradient(subject: Subject, case: Case) -> None:
    if not asks_for_gradients(subject, case):
        return
    for layout in ("transposed", "sliced"):
        gradients_agree(subject, case.having(grad_output=lay_out(case["grad_output"], layout)))
    ones = case.having(grad_output=torch.ones_like(case["grad_output"]))
    made = make(subject, case)
    bound, inputs = calling(subject, made, ones)
    arguments = bound.arguments(inputs)
    leaves = {name: t.requires_grad_() for name, t in arguments.items() if differentiable(subject.operation, name, t)}
    if not leaves:
        return
    output = bound.call(arguments)
    expanded = torch.ones((), dtype=output.dtype, device=output.device).expand(output.shape)
    gradients = bound.pull_back(output, expanded, leaves)
    for name, right in expectations(subject, ones).items():
        if name in leaves:
            got = subject.gradient(name, gradients)
            subject.compare(f"grad_{name} of a sum", got, right.expected, right.limit)


@covers("BLK-11", cases=one, feature="backward", any_call=True, plain=plain)
def test_backward_stands_by_itself(subject: Subject, case: Case) -> None:
    if not asks_for_gradients(subject, case):
        return
    right = expectations(subject, case)
    made = make(subject, case)
    bound, inputs = calling(subject, made, case)
    arguments = bound.arguments(inputs)
    leaves = {name: t.requires_grad_() for name, t in arguments.items() if differentiable(subject.operation, name, t)}
    if leaves:
        output = bound.call(arguments)
        grad_output = case["grad_output"].to(subject.device)
        for _ in range(2):
            gradients = bound.pull_back(output, grad_output, leaves, retain_graph=True)
            for name in leaves.keys() & right.keys():
                got = subject.gradient(name, gradients)
                subject.compare(f"grad_{name}", got, right[name].expected, right[name].limit)
    for alone in leaves.keys() & right.keys():
        arguments = bound.arguments(inputs)
        output = bound.call(arguments | {alone: arguments[alone].requires_grad_()})
        gradients = bound.pull_back(output, case["grad_output"].to(subject.device), {alone: arguments[alone]})
        got = subject.gradient(alone, gradients)
        subject.compare(f"grad_{alone} alone", got, right[alone].expected, right[alone].limit)


@covers("BLK-12", cases=representative, any_call=True, plain=plain_output)
def test_without_gradients(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, backward=False)["output"]
    for mode in (torch.no_grad, torch.inference_mode):
        made = make(subject, case)
        with mode():
            output = forward(subject, case, made)
            expect(not output.requires_grad, f"under {mode.__name__} the output asks for gradients")
            subject.compare(f"output under {mode.__name__}", output, right.expected, right.limit)


@covers("BLK-13", cases=representative, plain=plain_output)
def test_training_without_dropout_is_evaluation(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, backward=False)["output"]
    module = make(subject, case)
    if not isinstance(module, nn.Module):
        return  # functions, and callables that know no modes
    for mode in (module.train, module.eval):
        mode()
        for context in (torch.enable_grad, torch.no_grad):
            with context():
                output = forward(subject, case, module)
            subject.compare(f"output after {mode.__name__}()", output, right.expected, right.limit)


@covers("BLK-14", cases=representative, feature="autocast", dtypes=("float32",), plain=plain)
def test_autocast(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, dtype="bfloat16")
    made = make(subject, case)
    bound, inputs = calling(subject, made, case)
    arguments = bound.arguments(inputs)
    leaves = {name: t for name, t in arguments.items() if differentiable(subject.operation, name, t)}
    if subject.backward:
        for tensor in leaves.values():
            tensor.requires_grad_()
    with torch.autocast(subject.device, dtype=torch.bfloat16):
        output = bound.call(arguments)
    subject.compare("output", output, right["output"].expected, right["output"].limit)
    if subject.backward and leaves and output.requires_grad:
        gradients = bound.pull_back(output, case["grad_output"].to(output), leaves)
        for name in leaves.keys() & right.keys():
            gradient = subject.gradient(name, gradients)
            expect(gradient.dtype == torch.float32, f"grad_{name} has dtype {gradient.dtype}, expected float32")
            subject.compare(f"grad_{name}", gradient, right[name].expected, right[name].limit)


@covers("BLK-15", cases=one, feature="compile", once=True, plain=plain_output)
def test_captured_whole(subject: Subject, case: Case) -> None:
    agrees(subject, case)  # imports on the first call are not part of the graph
    made = make(subject, case)
    compiled = captured(made, "aot_eager" if subject.settings.profile == "thorough" else "eager")
    separate = "BLK-17" not in operations.OPERATIONS[subject.operation].exempt
    alone = batches(subject, case)[:1] if separate else []
    for tried in (case, other_numbers(subject.operation, case), *alone):
        right = expectations(subject, tried, backward=False)["output"]
        subject.shapes = tried.shapes
        subject.compare("output, compiled", _call(subject, compiled, tried), right.expected, right.limit)


@covers("BLK-16", cases=one, feature="export", once=True, plain=plain_output)
def test_exported_whole(subject: Subject, case: Case) -> None:
    agrees(subject, case)
    made = make(subject, case)
    inputs = {name: t.to(subject.device) for name, t in inputs_of(subject.operation, case).items()}
    program = exported(made, named=inputs) if is_module(subject) else exported(made, tuple(inputs.values()))
    for tried in (case, other_numbers(subject.operation, case)):
        right = expectations(subject, tried, backward=False)["output"]
        subject.compare("output, exported", _call(subject, program, tried), right.expected, right.limit)


def _call(subject: Subject, made: Callable[..., Any], case: Case) -> Tensor:
    bound, inputs = calling(subject, made, case)
    return bound.forward(inputs)
