"""What every block is held to whatever is around it: frozen parts, modes, expansion. Clauses: BLK-26 to BLK-29."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from detr_conformance.harness.block import (
    by_name,
    calling,
    differentiable,
    expectations,
    forward,
    leaves_of,
    make,
    parameters_if_named,
    run,
)
from detr_conformance.harness.block_case import call_with, inputs_of, parameters_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject, explained
from detr_conformance.harness.suite_test import covers
from detr_conformance.isolation import ambient
from detr_conformance.operations import BLOCKS
from detr_conformance.topics.every_block.cases.other_numbers import other_parameters
from detr_conformance.topics.every_block.cases.representative import one
from detr_conformance.topics.every_block.checks import (
    asks_for_gradients,
    compare_gradients,
    is_module,
    plain,
    right_after,
)

OPERATIONS = BLOCKS
FEW = 8  # of more modules within modules each one is not frozen by itself


# -- frozen parts ---------------------------------------------------------------------------------------------


def asking(names: list[str], given: set[str]) -> dict[str, list[str]]:
    """Who asks for a gradient, of arguments and parameters; the others are frozen."""
    parameters = [name for name in names if name not in given]
    chosen = {
        "of the arguments alone": [name for name in names if name in given],
        "of the parameters alone": parameters,
        "of every other parameter": parameters[::2],
        "of the other parameters": parameters[1::2],
    }
    for part in parts_of(parameters):
        chosen[f"of all but {part}"] = [name for name in names if name in given or not name.startswith(f"{part}.")]
    return {what: those for what, those in chosen.items() if those}


def parts_of(parameters: list[str]) -> list[str]:
    """The modules that these belong to: those of the first two steps of a path, where there are not too many."""
    paths = [name.split(".")[:-1] for name in parameters]
    outer, inner = ({".".join(path[:depth]) for path in paths if len(path) >= depth} for depth in (1, 2))
    return sorted(outer | inner) if len(inner) <= FEW else sorted(outer)


@covers("BLK-26", cases=one, feature="backward", plain=plain)
def test_frozen_parts(subject: Subject, case: Case) -> None:
    if not is_module(subject) or not asks_for_gradients(subject, case):
        return
    right = expectations(subject, case)
    reached = sorted(name for name, each in right.items() if name != "output" and bool((each.expected != 0).any()))
    given = {name for name in inputs_of(subject.operation, case) if name in reached}
    for what, those in asking(reached, given).items():
        made = make(subject, case)
        bound, inputs = calling(subject, made, case)
        arguments = bound.arguments(inputs)
        leaves = leaves_of(subject, made, case, arguments)
        if not all(leaf.is_leaf for leaf in leaves.values()):
            return
        wanted = {name: leaf for name, leaf in leaves.items() if (name.rpartition("/")[0] or name) in those}
        for name, leaf in leaves.items():
            leaf.requires_grad_(name in wanted)
        output = bound.call(arguments)
        gradients = by_name(bound.pull_back(output, case["grad_output"].to(subject.device), wanted))
        compare_gradients(subject, gradients, right, what)


# -- surroundings ---------------------------------------------------------------------------------------------


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    with ambient.kept():
        torch.use_deterministic_algorithms(True, warn_only=True)
        yield


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "with deterministic algorithms": deterministic_algorithms,
    "with hooks for saved tensors": ambient.saving_elsewhere,
    "after a call that raised": contextlib.nullcontext,
}


@covers("BLK-27", cases=one, plain=plain)
def test_surroundings(subject: Subject, case: Case) -> None:
    backward = subject.backward and asks_for_gradients(subject, case)
    right = expectations(subject, case, backward=backward)
    for what, surroundings in SURROUNDINGS.items():
        made = make(subject, case)
        if what == "after a call that raised":
            raise_in(subject, made, case)
        with surroundings():
            if backward:
                result = run(subject, case, made)
                output, gradients = result.output, result.gradients
            else:
                output, gradients = forward(subject, case, made), {}
        subject.compare(f"output {what}", output, right["output"].expected, right["output"].limit)
        compare_gradients(subject, gradients, right, what)


def raise_in(subject: Subject, made: Any, case: Case) -> None:
    """A call with tensors of one axis; where a block accepts them there is nothing to be seen."""
    inputs = inputs_of(subject.operation, case)
    flat = {name: t.new_ones(3).to(subject.device) if t.is_floating_point() else t for name, t in inputs.items()}
    with contextlib.suppress(Exception):
        call_with(subject.operation, made, flat)


# -- expanded arguments ---------------------------------------------------------------------------------------


@covers("BLK-28", cases=one, plain=plain)
def test_expanded_arguments(subject: Subject, case: Case) -> None:
    """One image (or box, or row) for all of a batch, of stride zero, one argument after another."""
    given = inputs_of(subject.operation, case)
    images = {name: t for name, t in given.items() if t.is_floating_point() and t.ndim > 1 and t.shape[0] > 1}
    for name, tensor in images.items():
        first = tensor[:1].expand_as(tensor)
        tried = case.having(**{name: first.contiguous()})
        backward = subject.backward and differentiable(subject.operation, name, tensor)
        right = expectations(subject, tried, backward=backward)
        bound, inputs = calling(subject, make(subject, case), tried)
        arguments = bound.arguments(inputs)
        arguments[name] = tensor[:1].to(subject.device).clone().expand_as(tensor).detach()
        require(arguments[name].stride(0) == 0, "the argument is not expanded")
        wanted = {name: arguments[name].requires_grad_()} if backward else {}
        output = bound.call(arguments)
        subject.compare(f"output of an expanded {name}", output, right["output"].expected, right["output"].limit)
        if backward and name in right:
            gradients = bound.pull_back(output, tried["grad_output"].to(subject.device), wanted)
            compare_gradients(subject, gradients, right, "of an expanded argument")


# -- parameters of the moment ---------------------------------------------------------------------------------


@covers("BLK-29", cases=one, plain=plain)
def test_parameters_of_the_moment(subject: Subject, case: Case) -> None:
    """Changed through `.data`, whose version nobody counts, and replaced by other tensors."""
    made = make(subject, case)
    own = (parameters_if_named(subject, made, case) if isinstance(made, nn.Module) else None) or {}
    if not own:
        return
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    other = other_parameters(subject.operation, case)
    right_after(subject, made, case, "before its parameters change")
    for name, parts in own.items():
        values = parameters_of(other)[name].split([part.shape[0] for part in parts])
        for part, value in zip(parts, values, strict=True):
            part.data.copy_(value.to(part))
    right_after(subject, made, other, "after its parameters changed through .data")
    with explained("load_state_dict(state, assign=True)"):
        made.load_state_dict(state, assign=True)
    right_after(subject, made, case, "after its parameters were replaced")
