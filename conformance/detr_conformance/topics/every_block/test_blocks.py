"""What every block is held to, with complete calls of each operation. Clauses: spec chapter 3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
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
    outputs,
    parameters_by_name,
    run,
)
from detr_conformance.harness.block_case import inputs_of, parameters_of
from detr_conformance.harness.case import LAYOUTS, Case, lay_out
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.packing import of_image, shapes_of_image
from detr_conformance.harness.subject import Subject, explained
from detr_conformance.harness.suite_test import covers
from detr_conformance.operations import BLOCKS
from detr_conformance.topics.every_block.other_numbers import other_numbers, other_parameters
from detr_conformance.topics.every_block.representative import representative

OPERATIONS = BLOCKS
DROPOUTS = ("attn_drop", "proj_drop", "ffn_drop", "dropout")


def one(subject: Subject) -> list[Case]:
    return representative(subject)[:1]


def is_module(subject: Subject) -> bool:
    return operations.OPERATIONS[subject.operation].kind == "module"


def asks_for_gradients(subject: Subject, case: Case) -> bool:
    """Some blocks take a mask and have no parameter: nothing is differentiable there."""
    return any(differentiable(subject.operation, name, t) for name, t in case.tensors.items() if name != "grad_output")


# -- form -----------------------------------------------------------------------------------------------------


@covers("BLK-1", cases=representative)
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
            )
        expect(output.layout == torch.strided, f"{name} has layout {output.layout}", where="output.layout")
        expect(
            output.device.type == torch.device(subject.device).type,
            f"{name} is on {output.device}",
            where="output.device",
            expected=subject.device,
            got=str(output.device),
        )
    agrees(subject, case)


@covers("BLK-2", cases=representative)
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


@covers("BLK-3", cases=one)
def test_the_factory_copies(subject: Subject, case: Case) -> None:
    if not is_module(subject):
        return
    state = {name: tensor.clone().to(subject.device) for name, tensor in parameters_of(case).items()}
    module, sibling = (built_from(subject, case, state) for _ in range(2))
    with torch.no_grad():
        own = parameters_by_name(subject.operation, sibling, case)
        for tensor in [*state.values(), *(part for parts in own.values() for part in parts)]:
            tensor.fill_(torch.nan)
    right = expectations(subject, case, backward=False)["output"]
    output = forward(subject, case, module)
    subject.compare("output, after state dict and sibling were overwritten", output, right.expected, right.limit)


@covers("BLK-4", cases=lambda subject: [case.laid_out(layout) for case in one(subject) for layout in LAYOUTS])
def test_any_strides(subject: Subject, case: Case) -> None:
    agrees(subject, case)
    if subject.backward and asks_for_gradients(subject, case):
        gradients_agree(subject, case)


@covers("BLK-5", cases=representative)
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


# -- repetition -----------------------------------------------------------------------------------------------


@covers("BLK-6", cases=representative)
def test_no_memory_of_the_past(subject: Subject, case: Case) -> None:
    """One module; its inputs change in place, then its parameters do, then the first call comes again."""
    made = make(subject, case)
    bound, inputs = calling(subject, made, case)
    storage = bound.arguments(inputs)
    numbers, parameters = other_numbers(subject.operation, case), other_parameters(subject.operation, case)
    for tried, what in ((case, "first"), (numbers, "new numbers in the same storage"), (parameters, "new parameters")):
        with torch.no_grad():
            for name, tensor in inputs_of(subject.operation, tried).items():
                storage[name].copy_(tensor)
            if tried is parameters and is_module(subject):
                _load(subject.operation, made, tried)
            output = bound.call(storage)
            bound.drop_held()
        right = expectations(subject, tried, backward=False)["output"]
        subject.compare(f"output ({what})", output, right.expected, right.limit)


def _load(operation: str, made: Any, case: Case) -> None:
    """Overwrites a module's parameters in place, as an optimiser does."""
    for name, parts in parameters_by_name(operation, made, case).items():
        values = parameters_of(case)[name].split([part.shape[0] for part in parts])
        for part, value in zip(parts, values, strict=True):
            part.copy_(value.to(part))


def with_dropout(subject: Subject) -> list[Case]:
    """Complete calls, where there is dropout at a probability that would show."""
    config = operations.OPERATIONS[subject.operation].config
    cases = representative(subject)
    if config is None:
        return cases
    drops = [field.name for field in fields(operations.resolve(config)) if field.name in DROPOUTS]
    return [replace(case, options=case.options | dict.fromkeys(drops, "0.5")) for case in cases]


@covers("BLK-7", cases=with_dropout, feature="deterministic")
def test_deterministic(subject: Subject, case: Case) -> None:
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(1)
        first = forward(subject, case)
        torch.manual_seed(2)
        subject.compare_exactly("output of the second call", forward(subject, case), first.detach())
        if subject.backward and asks_for_gradients(subject, case):
            one, two = run(subject, case), run(subject, case)
            for name, gradient in one.gradients.items():
                if gradient is not None:
                    again = subject.gradient(name, two.gradients)
                    subject.compare_exactly(f"grad_{name} of the second call", again, gradient)
    finally:
        torch.random.set_rng_state(state)
    agrees(subject, case)


@covers("BLK-8", cases=with_dropout)
def test_no_side_effects(subject: Subject, case: Case) -> None:
    """`Subject.call` compares the modes around each call."""
    made = make(subject, case)
    before = torch.random.get_rng_state()
    forward(subject, case, made)
    expect(torch.equal(before, torch.random.get_rng_state()), "the call drew random numbers", where="global state")


# -- gradients and modes --------------------------------------------------------------------------------------


@covers("BLK-9", cases=representative, feature="backward")
def test_every_gradient(subject: Subject, case: Case) -> None:
    if not asks_for_gradients(subject, case):
        return
    result = run(subject, case)
    for name, right in expectations(subject, case).items():
        if name != "output":
            gradient = subject.gradient(name, result.gradients)
            expect(gradient.dtype == subject.torch_dtype, f"grad_{name} has dtype {gradient.dtype}", where=name)
            subject.compare(f"grad_{name}", gradient, right.expected, right.limit)


@covers("BLK-10", cases=one, feature="backward")
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


@covers("BLK-11", cases=one, feature="backward")
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


@covers("BLK-12", cases=representative)
def test_without_gradients(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, backward=False)["output"]
    for mode in (torch.no_grad, torch.inference_mode):
        made = make(subject, case)
        with mode():
            output = forward(subject, case, made)
            expect(not output.requires_grad, f"under {mode.__name__} the output asks for gradients")
            subject.compare(f"output under {mode.__name__}", output, right.expected, right.limit)


@covers("BLK-13", cases=representative)
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


@covers("BLK-14", cases=representative, feature="autocast", dtypes=("float32",))
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


@covers("BLK-15", cases=one, feature="compile", once=True)
def test_captured_whole(subject: Subject, case: Case) -> None:
    agrees(subject, case)  # imports on the first call are not part of the graph
    torch.compiler.reset()
    made = make(subject, case)
    backend = "aot_eager" if subject.settings.profile == "thorough" else "eager"
    captured = torch.compile(made, fullgraph=True, backend=backend)
    separate = "BLK-17" not in operations.OPERATIONS[subject.operation].exempt
    alone = batches(subject, case)[:1] if separate else []
    for tried in (case, other_numbers(subject.operation, case), *alone):
        right = expectations(subject, tried, backward=False)["output"]
        subject.shapes = tried.shapes
        subject.compare("output, compiled", _call(subject, captured, tried), right.expected, right.limit)


@covers("BLK-16", cases=one, feature="export", once=True)
def test_exported_whole(subject: Subject, case: Case) -> None:
    agrees(subject, case)
    made = make(subject, case)
    module = made if isinstance(made, nn.Module) else _Wrapped(made)
    inputs = {name: t.to(subject.device) for name, t in inputs_of(subject.operation, case).items()}
    positional = () if is_module(subject) else tuple(inputs.values())
    with torch.no_grad(), explained("torch.export.export"):
        program = torch.export.export(module, positional, inputs if is_module(subject) else {}).module()
    for tried in (case, other_numbers(subject.operation, case)):
        right = expectations(subject, tried, backward=False)["output"]
        subject.compare("output, exported", _call(subject, program, tried), right.expected, right.limit)


class _Wrapped(nn.Module):
    """torch.export takes modules."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)


def _call(subject: Subject, made: Callable[..., Any], case: Case) -> Tensor:
    bound, inputs = calling(subject, made, case)
    return bound.forward(inputs)


# -- batches --------------------------------------------------------------------------------------------------


@covers("BLK-17", cases=representative)
def test_images_are_separate(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, backward=False)["output"]
    for image, alone in enumerate(batches(subject, case)):
        expected, limit = (_of_image_alone(subject, case, t, image) for t in (right.expected, right.limit))
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
                _of_image_alone(subject, case, t, image) for t in (output, right.expected, right.limit)
            )
            subject.shapes = shapes_of_image(case.shapes, axis_of(subject)) if case.shapes else None
            subject.compare("output beside a broken image", beside, expected, limit)


SHARED = ("spatial_shapes", "level_start_index", "level_embed")  # of all images


def axis_of(subject: Subject) -> int:
    return operations.OPERATIONS[subject.operation].image_axis


def images_of(subject: Subject, case: Case) -> int:
    if not case.shapes:
        return case["grad_output"].shape[0]
    return next(iter(case.shapes.values()))[axis_of(subject)]


def _of_image_alone(subject: Subject, case: Case, output: Tensor, image: int) -> Tensor:
    """What an output, or its limits, say of one image."""
    if not case.shapes:
        return output[image : image + 1]
    return of_image(output, case.shapes, image, axis_of(subject))


def batches(subject: Subject, case: Case) -> list[Case]:
    """Each image of the case by itself."""
    size = images_of(subject, case)
    inputs = {name: t for name, t in inputs_of(subject.operation, case).items() if name not in SHARED}
    found = []
    for image in range(size):
        own = {name: _of_image(name, tensor, image, size) for name, tensor in inputs.items()}
        one = case.having(**own, grad_output=_of_image_alone(subject, case, case["grad_output"], image))
        found.append(replace(one, shapes=shapes_of_image(case.shapes, axis_of(subject)) if case.shapes else None))
    return found


def _of_image(name: str, tensor: Tensor, image: int, size: int) -> Tensor:
    """Attention masks are (query, key) for all images, or (image * head, query, key)."""
    if name.endswith("attn_mask"):
        return tensor if tensor.ndim == 2 else tensor.unflatten(0, (size, -1))[image]
    return tensor[image : image + 1]
