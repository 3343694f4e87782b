"""Calling a module under test, and what a right one may return."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.harness.case import Case, lay_out, mixed_seed
from detr_conformance.harness.mismatch import Mismatch
from detr_conformance.harness.module_cases import INPUTS, config_of, parameters_of
from detr_conformance.harness.msda_oracle import Expectation
from detr_conformance.harness.random_rounding import spread
from detr_conformance.harness.subject import Result, Subject, explained
from detr_reference.deformable_attention import ms_deform_attn
from detr_reference.deformable_attention_module import DeformableCore, build

RUNS = 8
SPREADS = 8.0  # c: how many root-mean-square deviations of randomised runs an implementation may be off


def make_module(subject: Subject, case: Case, initialise: bool = False) -> Any:
    """The target's module with the case's parameters, in evaluation mode; with its own ones if `initialise`."""
    state = {name: tensor.clone().to(subject.device) for name, tensor in parameters_of(case).items()}
    with explained("the factory"):
        module = subject.implementation(config_of(case), None if initialise else state)
    if isinstance(module, nn.Module):
        module.to(device=subject.device, dtype=subject.torch_dtype).eval()
    return module


def calling(subject: Subject, module: Any, case: Case) -> tuple[Subject, Case]:
    """A subject that calls the module with the case's inputs by name, and the case reduced to these."""
    names = [name for name in INPUTS if name in case.tensors]
    kept = {name: case[name] for name in (*names, "grad_output") if name in case.tensors}
    bound = subject.replacing(lambda *values: module(**dict(zip(names, values, strict=True))))
    return bound, Case(kept, case.layout, case.note, case.options)


def forward(subject: Subject, case: Case, module: Any = None) -> Tensor:
    """The output; the module is made anew unless given."""
    module = make_module(subject, case) if module is None else module
    bound, inputs = calling(subject, module, case)
    before = {name: tensor.detach().clone() for name, tensor in _state(module).items()}
    output = bound.forward(inputs)
    for name, tensor in _state(module).items():
        if not torch.equal(tensor, before[name]):
            raise Mismatch(f"the call changed the parameter {name}", where=name)
    return output


def run(subject: Subject, case: Case) -> Result:
    """Output, and gradients of every floating input and every parameter."""
    module = make_module(subject, case)
    bound, inputs = calling(subject, module, case)
    arguments = bound.arguments(inputs)
    leaves = {name: t.requires_grad_() for name, t in arguments.items() if t.is_floating_point()}
    leaves |= parameters_by_name(module, case)
    output = bound.call(arguments)
    grad_output = lay_out(case["grad_output"].to(subject.device), case.layout)
    return Result(output, bound.pull_back(output, grad_output, leaves))


def parameters_by_name(module: Any, case: Case) -> dict[str, Tensor]:
    """The module's own parameters under the reference's names; each must end in exactly one of them."""
    own = dict(module.named_parameters()) if isinstance(module, nn.Module) else {}
    found: dict[str, Tensor] = {}
    for name in parameters_of(case):
        matches = [key for key in own if key == name or key.endswith(f".{name}")]
        if len(matches) != 1:
            raise Mismatch(
                f"the module has {len(matches)} parameters whose names end in {name}, so its gradient cannot be read",
                where=name,
                expected="one",
                got=", ".join(matches) or "none",
            )
        found[name] = own[matches[0]]
    return found


def expectations(subject: Subject, case: Case, backward: bool = True, precise: bool = False) -> dict[str, Expectation]:
    """Right results in float64, and limits: c times the spread of the reference with randomised roundings.

    Unless the clause is about precision (`precise`), float64 modules may compute in float32.
    """
    dtype = subject.torch_dtype if precise or subject.dtype != "float64" else torch.float32
    right = _reference(case, torch.float64, backward)
    core = half_coordinates if subject.variant("coordinates") == "half" else ms_deform_attn
    spreads = spread(
        lambda: _reference(case, dtype, backward, core),
        right,
        runs=RUNS,
        seed=mixed_seed(case.note, sorted(case.options.items())) >> 8,
    )
    unit, tiny = torch.finfo(dtype).eps / 2, torch.finfo(dtype).tiny
    return {
        name: Expectation(right[name], SPREADS * spreads[name] + 2 * unit * right[name].abs() + tiny) for name in right
    }


def agrees(subject: Subject, case: Case, precise: bool = False) -> None:
    """The output lies within its limits."""
    right = expectations(subject, case, backward=False, precise=precise)["output"]
    subject.compare("output", forward(subject, case), right.expected, right.limit)


def gradients_agree(subject: Subject, case: Case) -> None:
    """The gradients of all inputs and parameters lie within their limits."""
    result = run(subject, case)
    for name, right in expectations(subject, case, precise=True).items():
        if name == "output":
            subject.compare(name, result.output, right.expected, right.limit)
        else:
            subject.compare(f"grad_{name}", subject.gradient(name, result.gradients), right.expected, right.limit)


def half_coordinates(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """The core under the variant `coordinates: half`: locations pass through the dtype of the value as in grid_sample,
    once as 2 x - 1 and once on the way back."""
    grid = 2 * locations.to(value.dtype) - 1
    return ms_deform_attn(value, shapes, starts, (grid + 1) / 2, weights)


def _reference(
    case: Case, dtype: torch.dtype, backward: bool, core: DeformableCore = ms_deform_attn
) -> dict[str, Tensor]:
    """The reference on the case's numbers: "output", and the gradients by name."""
    parameters = {name: tensor.to(dtype) for name, tensor in parameters_of(case).items()}
    module = build(config_of(case), parameters).eval()
    module.core = core
    inputs = {name: case[name] for name in INPUTS if name in case.tensors}
    leaves: dict[str, Tensor] = {}
    for name, tensor in inputs.items():
        if tensor.is_floating_point():
            leaves[name] = inputs[name] = tensor.to(dtype, copy=True).requires_grad_(backward)
    output = module(**inputs)
    results = {"output": output.detach()}
    if backward:
        leaves |= dict(module.named_parameters())
        gradients = torch.autograd.grad(output, list(leaves.values()), case["grad_output"].to(dtype))
        results |= dict(zip(leaves, gradients, strict=True))
    return results


def _state(module: Any) -> dict[str, Tensor]:
    return dict(module.named_parameters()) if isinstance(module, nn.Module) else {}
