"""What every block is held to: its output, its arguments, the images of a batch. Clauses: BLK-1 to BLK-5, BLK-17."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.harness.block import (
    agrees,
    calling,
    expectations,
    forward,
    gradients_agree,
    make,
    outputs,
    parameters_if_named,
    run,
)
from detr_conformance.harness.block_case import inputs_of, parameters_of
from detr_conformance.harness.case import LAYOUTS, OF_IMAGES, Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.packing import shapes_of_image
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.operations import BLOCKS
from detr_conformance.topics.every_block.cases.images import SHARED, axis_of, batches, images_of, of_image_alone
from detr_conformance.topics.every_block.cases.other_numbers import other_numbers
from detr_conformance.topics.every_block.cases.representative import one, representative
from detr_conformance.topics.every_block.checks import asks_for_gradients, is_module, plain, plain_output

OPERATIONS = BLOCKS


# -- form -----------------------------------------------------------------------------------------------------


@covers("BLK-1", cases=representative, any_call=True, plain=plain_output)
def test_output_form(subject: Subject, case: Case) -> None:
    returned = outputs(subject, case) if case.shapes else {"the output": forward(subject, case)}
    for name, output in returned.items():
        if case.shapes and name not in case.shapes:
            continue  # what else a target returns is its own
        if output.is_floating_point():
            expect(
                output.dtype == subject.torch_dtype,
                f"{name} has dtype {output.dtype}",
                where="output.dtype",
                expected=str(subject.torch_dtype),
                got=str(output.dtype),
                kind="form",
            )
        expect(output.layout == torch.strided, f"{name} has layout {output.layout}", where="output.layout", kind="form")
        expect(
            output.device.type == torch.device(subject.device).type,
            f"{name} is on {output.device}",
            where="output.device",
            expected=subject.device,
            got=str(output.device),
            kind="form",
        )
    agrees(subject, case)


@covers("BLK-2", cases=representative, any_call=True, plain=plain)
def test_arguments_are_left_alone(subject: Subject, case: Case) -> None:
    """Each call and each backward pass compares bytes: arguments, parameters, buffers, the incoming gradient."""
    forward(subject, case)
    if subject.backward and asks_for_gradients(subject, case):
        run(subject, case)
    if is_module(subject):
        state = {name: tensor.clone() for name, tensor in parameters_of(case).items()}
        module = built_from(subject, case, state)
        forward(subject, case, module)
        for name, tensor in parameters_of(case).items():
            expect(torch.equal(state[name], tensor), f"the state dict's {name} was changed", where=name)


def built_from(subject: Subject, case: Case, state: dict[str, Tensor]) -> Any:
    """The target's module from this very state dict, which `make` would copy."""
    return make(subject.replacing(lambda config, _: subject.implementation(config, state)), case)


@covers("BLK-3", cases=one, plain=plain_output)
def test_the_factory_copies(subject: Subject, case: Case) -> None:
    if not is_module(subject):
        return
    state = {name: tensor.clone().to(subject.device) for name, tensor in parameters_of(case).items()}
    module, sibling = (built_from(subject, case, state) for _ in range(2))
    with torch.no_grad():
        for tensor in [*state.values(), *numbers_of(subject, sibling, case)]:
            tensor.fill_(torch.nan)
    right = expectations(subject, case, backward=False)["output"]
    output = forward(subject, case, module)
    subject.compare("output, after state dict and sibling were overwritten", output, right.expected, right.limit)


def numbers_of(subject: Subject, module: Any, case: Case) -> list[Tensor]:
    """All that a module computes with. Of an nn.Module no names are needed, which only gradients are read by."""
    if isinstance(module, nn.Module):
        return [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]
    named = parameters_if_named(subject, module, case) or {}
    return [part for parts in named.values() for part in parts]


def in_any_layout(subject: Subject) -> list[Case]:
    (case,) = one(subject)
    images = any(t.ndim == 4 and t.is_floating_point() for t in inputs_of(subject.operation, case).values())
    return [case.laid_out(layout) for layout in (*LAYOUTS, *([OF_IMAGES] if images else []))]


@covers("BLK-4", cases=in_any_layout, plain=plain)
def test_any_strides(subject: Subject, case: Case) -> None:
    agrees(subject, case)
    if subject.backward and asks_for_gradients(subject, case):
        gradients_agree(subject, case)


@covers("BLK-5", cases=representative, any_call=True, plain=plain_output)
def test_the_output_is_the_callers(subject: Subject, case: Case) -> None:
    """`Subject.call` holds earlier outputs over later calls; here the first one is also overwritten."""
    made = make(subject, case)
    bound, inputs = calling(subject, made, case)
    with torch.no_grad():
        bound.forward(inputs)
        first = bound.handed_out()
        bound.forward(calling(subject, made, other_numbers(subject.operation, case))[1])
        bound.drop_held()
        arguments = bound.arguments(inputs)
        bound.call(arguments)
        for tensor in (*bound.handed_out(), *first):
            bound.drop_held()
            before = {name: argument.clone() for name, argument in arguments.items()}
            if not tensor.is_inference():
                tensor.fill_(-7)
            for name, argument in arguments.items():
                same = torch.equal(argument.nan_to_num(), before[name].nan_to_num())
                expect(same, f"the output shares memory with the argument {name}", where=name)
    right = expectations(subject, case, backward=False)["output"]
    output = forward(subject, case, made)
    subject.compare("output, after an earlier one was overwritten", output, right.expected, right.limit)


# -- batches --------------------------------------------------------------------------------------------------


@covers("BLK-17", cases=representative, any_call=True)
def test_images_are_separate(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, backward=False)["output"]
    for image, alone in enumerate(batches(subject, case)):
        expected, limit = (of_image_alone(subject, case, t, image) for t in (right.expected, right.limit))
        subject.shapes = alone.shapes
        subject.compare(f"output of image {image} alone", forward(subject, alone), expected, limit)
    subject.shapes = case.shapes
    broken = {}
    for name, tensor in inputs_of(subject.operation, case).items():
        if name not in SHARED and tensor.is_floating_point() and not name.endswith("_mask"):
            broken[name] = tensor.clone()
            broken[name][0] = torch.nan
    if broken:
        output = forward(subject, case.having(**broken))
        for image in range(1, images_of(subject, case)):
            beside, expected, limit = (
                of_image_alone(subject, case, t, image) for t in (output, right.expected, right.limit)
            )
            subject.shapes = shapes_of_image(case.shapes, axis_of(subject)) if case.shapes else None
            subject.compare("output beside a broken image", beside, expected, limit)
