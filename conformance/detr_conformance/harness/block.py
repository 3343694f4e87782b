"""Calling an operation under test on a case, and what a right one may return."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from detr_conformance.harness.block_case import (
    call_with,
    config_of,
    function_settings,
    inputs_of,
    parameters_of,
    reference_callable,
    trained,
)
from detr_conformance.harness.case import TORCH_DTYPES, Case, digest_of, lay_out, mixed_seed
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.half_coordinates import half_coordinates
from detr_conformance.harness.mismatch import Mismatch, Raised
from detr_conformance.harness.packing import Shapes, packed, unpacked
from detr_conformance.harness.random_rounding import spread
from detr_conformance.harness.subject import NotProvided, Result, Subject, explained
from detr_conformance.isolation import remote
from detr_conformance.operations import OPERATIONS

# Randomised runs of the reference, and c: how many of their root-mean-square deviations an implementation may be off.
PRECISE = (8, 8.0)
STRUCTURAL = (4, 16.0)
OF_MANY = (8, 16.0)
MANY = 2_000  # elements of an input with reference points, of which four runs find some far too steady by chance
PART = "output:"  # before the name of one of several outputs
REMEMBERED = 4000  # small cases: some tens of megabytes

_expectations: OrderedDict[tuple[Any, ...], dict[str, Expectation]] = OrderedDict()


# -- calling --------------------------------------------------------------------------------------------------


def make(subject: Subject, case: Case, initialise: bool = False) -> Any:
    """The target's callable for a case: its module with the case's parameters (its own ones if `initialise`), in
    evaluation mode; or its function with the case's settings."""
    if OPERATIONS[subject.operation].kind == "function":
        settings = function_settings(subject.operation, case, subject.torch_dtype)
        if isinstance(subject.implementation, remote.Function):
            return subject.implementation.bound(settings) if settings else subject.implementation
        return lambda *tensors, **named: subject.implementation(*tensors, **named, **settings)
    state = {name: tensor.clone().to(subject.device) for name, tensor in parameters_of(case).items()}
    with explained("the factory"):
        module = subject.implementation(config_of(subject.operation, case), None if initialise else state)
    if isinstance(module, nn.Module):
        module.to(device=subject.device, dtype=subject.torch_dtype).eval()
    return module


def fresh(subject: Subject, case: Case) -> Any:
    """The target's module as it initialises itself from the run's seed; the global generator is left as it was."""
    try:
        with seeded(subject):
            return make(subject, case, initialise=True)
    except Raised as raised:
        if raised.got == "NotImplementedError":
            raise NotProvided("the factory does not initialise parameters") from raised
        raise


def while_training(subject: Subject, case: Case) -> Tensor:
    """The output of a new module in training mode, with the seed of the run."""
    module = in_training(make(subject, case))
    with seeded(subject):
        return forward(subject, case, module).detach().cpu()


def in_training(module: Any) -> nn.Module:
    """The module in training mode. A plain callable has none, and claims nothing of training."""
    if not isinstance(module, nn.Module):
        raise NotProvided(f"a {type(module).__name__} is no nn.Module and has no training mode")
    return module.train()


@contextmanager
def seeded(subject: Subject) -> Iterator[None]:
    """The global generator starts from the run's seed, and is afterwards what it was."""
    state = torch.random.get_rng_state()
    torch.manual_seed(subject.settings.seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)


def calling(subject: Subject, made: Callable[..., Any], case: Case) -> tuple[Subject, Case]:
    """A subject that calls `made` with the case's inputs, and the case reduced to these."""
    inputs = inputs_of(subject.operation, case)
    names = tuple(inputs)
    bound = subject.replacing(lambda *values: call_with(subject.operation, made, dict(zip(names, values, strict=True))))
    bound.shapes, bound.configuration = case.shapes, case.options
    return bound, replace(case, tensors={**inputs, "grad_output": case["grad_output"]})


def forward(subject: Subject, case: Case, made: Callable[..., Any] | None = None) -> Tensor:
    """The output, several ones packed; the module is made anew unless given. No parameter or buffer may change."""
    return _called(subject, case, made)[1]


def outputs(subject: Subject, case: Case, made: Callable[..., Any] | None = None) -> dict[str, Tensor]:
    """All that a call with several outputs returns, the integer ones too; checked as by `forward`."""
    bound, _ = _called(subject, case, made)
    return dict(bound.raw)


def parts(case: Case, joined: Tensor) -> dict[str, Tensor]:
    """The several outputs again, from the one tensor that `forward` and `expectations` join them in."""
    return unpacked(joined, case.shapes or {})


def _called(subject: Subject, case: Case, made: Callable[..., Any] | None) -> tuple[Subject, Tensor]:
    made = make(subject, case) if made is None else made
    bound, inputs = calling(subject, made, case)
    before = {name: tensor.detach().clone() for name, tensor in _state(made).items()}
    output = bound.forward(inputs)
    for name, tensor in _state(made).items():
        if not torch.equal(tensor.nan_to_num(), before[name].nan_to_num()):
            raise Mismatch(f"the call changed {name}", where=name, kind="arguments")
    return bound, output


def run(subject: Subject, case: Case, made: Callable[..., Any] | None = None) -> Result:
    """Output, and gradients of every input that is no constant, and of every parameter that is trained."""
    made = make(subject, case) if made is None else made
    bound, inputs = calling(subject, made, case)
    arguments = bound.arguments(inputs)
    leaves = leaves_of(subject, made, case, arguments)
    output = bound.call(arguments)
    grad_output = lay_out(case["grad_output"].to(subject.device), case.layout)
    gradients = by_name(bound.pull_back(output, grad_output, leaves))
    return Result(output, gradients)


def leaves_of(subject: Subject, made: Any, case: Case, arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    """What gradients are asked of: arguments, and parameters in the parts they are cut into, as "name/0"."""
    leaves = {name: t.requires_grad_() for name, t in arguments.items() if differentiable(subject.operation, name, t)}
    cut = parameters_by_name(subject.operation, made, case)
    return leaves | {f"{name}/{i}": part for name, several in cut.items() for i, part in enumerate(several)}


def by_name(found: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    """The gradients of `leaves_of`, those of the parts of a parameter joined."""
    parts: dict[str, list[Tensor | None]] = {}
    for name, gradient in found.items():
        parts.setdefault(name.rpartition("/")[0] or name, []).append(gradient)
    return {name: _joined(several) if f"{name}/0" in found else several[0] for name, several in parts.items()}


def differentiable(operation: str, name: str, tensor: Tensor) -> bool:
    """Additive masks are constants, even where they are floating; so is what the operation names its constants."""
    constant = name.endswith("_mask") or name in OPERATIONS[operation].constants
    return tensor.is_floating_point() and not constant


def parameters_by_name(operation: str, made: Any, case: Case) -> dict[str, tuple[Tensor, ...]]:
    """The module's own parameters under the names of those that the reference trains, each in the parts it is cut into.

    A module says so itself by a method `spec_parameters() -> {name: tensor or tensors whose rows it consists of}`;
    otherwise exactly one of its parameters must have the reference's name, or one that ends in it.
    """
    names = trained(operation, case) & parameters_of(case).keys()
    if hasattr(made, "spec_parameters"):
        said = made.spec_parameters()
        if missing := sorted(names - said.keys()):
            raise Mismatch(
                f"spec_parameters() does not say which tensor is {missing[0]}, so its gradient cannot be read",
                where=missing[0],
                expected=", ".join(missing),
                got=", ".join(sorted(said)) or "nothing",
                kind="parameters",
            )
        return {name: said[name] if isinstance(said[name], tuple) else (said[name],) for name in names}
    own = dict(made.named_parameters()) if isinstance(made, nn.Module) else {}
    found: dict[str, tuple[Tensor, ...]] = {}
    for name in sorted(names):
        matches = [name] if name in own else [key for key in own if key.endswith(f".{name}")]
        if len(matches) != 1:
            raise Mismatch(
                f"the module has {len(matches)} parameters whose names end in {name}, so its gradient cannot be read",
                where=name,
                expected="one",
                got=", ".join(matches) or "none",
                kind="parameters",
            )
        found[name] = (own[matches[0]],)
    return found


def parameters_if_named(subject: Subject, made: Any, case: Case) -> dict[str, tuple[Tensor, ...]] | None:
    """The same; None where a forward-only target has other names, which nothing but gradients would be read by."""
    try:
        return parameters_by_name(subject.operation, made, case)
    except Mismatch:
        if subject.backward:
            raise
        return None


# -- comparing ------------------------------------------------------------------------------------------------


def agrees(subject: Subject, case: Case, precise: bool = False) -> None:
    """The output lies within its limits."""
    right = expectations(subject, case, backward=False, precise=precise)["output"]
    subject.compare("output", forward(subject, case), right.expected, right.limit)


def gradients_agree(subject: Subject, case: Case, precise: bool = False) -> None:
    """The output and the gradients of all inputs and parameters lie within their limits."""
    compare_result(subject, run(subject, case), expectations(subject, case, precise=precise))


def compare_result(subject: Subject, result: Result, right: dict[str, Expectation]) -> None:
    for name, want in right.items():
        if name == "output":
            subject.compare(name, result.output, want.expected, want.limit)
        else:
            subject.compare(f"grad_{name}", subject.gradient(name, result.gradients), want.expected, want.limit)


def raises(subject: Subject, case: Case, about: str) -> None:
    """The call, or already the factory, must raise an ordinary exception; what it says is its own affair."""
    try:
        made = make(subject, case)
        given = inputs_of(subject.operation, case)
        inputs = {name: lay_out(t.to(subject.device), "contiguous") for name, t in given.items()}
        call_with(subject.operation, made, inputs)
    except Exception:
        return
    raise Mismatch(f"no error, although {about}", expected="an exception", got="a result")


def expectations(
    subject: Subject, case: Case, backward: bool = True, precise: bool = False, dtype: str | None = None
) -> dict[str, Expectation]:
    """Right results in float64, and limits: c times the spread of the reference with randomised roundings.

    Args:
        precise: the clause is about precision; otherwise float64 may be computed in float32, and what the reference
            keeps in float32 in half.
        dtype: round to this one instead of the claimed one, as under autocast.
    """
    name = dtype or ("float32" if subject.dtype == "float64" and not precise else subject.dtype)
    half = subject.variant("coordinates") == "half"
    key = (subject.operation, half, name, precise, backward, digest_of(case))
    with_gradients = (*key[:4], True, key[5])
    if with_gradients in _expectations:
        key = with_gradients  # its forward pass drew the same numbers
    if key in _expectations:
        _expectations.move_to_end(key)
    else:
        _expectations[key] = _expect(subject.operation, case, TORCH_DTYPES[name], backward, half, precise)
        if len(_expectations) > REMEMBERED:
            _expectations.popitem(last=False)
    return _expectations[key]


def _expect(
    operation: str, case: Case, dtype: torch.dtype, backward: bool, half: bool, precise: bool
) -> dict[str, Expectation]:
    right = _results(operation, reference_callable(operation, case, torch.float64), case, torch.float64, backward)
    # In float64 the oracle is no better than what it judges: there the spread of float32 is scaled down.
    tried = torch.float32 if dtype == torch.float64 else dtype
    scale = torch.finfo(dtype).eps / torch.finfo(tried).eps
    made = reference_callable(operation, case, tried)
    if half and hasattr(made, "core"):
        made.core = half_coordinates
    many = "reference_points" in case.tensors and max(t.numel() for t in inputs_of(operation, case).values()) > MANY
    runs, deviations = PRECISE if precise else OF_MANY if many else STRUCTURAL
    spreads = spread(
        lambda: _results(operation, made, case, tried, backward),
        right,
        runs=runs,
        seed=mixed_seed(case.note, sorted(case.options.items())) >> 8,
        coarsest=None if precise else tried,
    )
    unit, tiny = torch.finfo(dtype).eps / 2, torch.finfo(dtype).tiny
    found = {
        name: Expectation(expected, deviations * scale * spreads[name] + 2 * unit * expected.abs() + tiny)
        for name, expected in right.items()
    }
    return found if case.shapes is None else _with_one_output(found, case.shapes)


def _with_one_output(found: dict[str, Expectation], shapes: Shapes) -> dict[str, Expectation]:
    """Several outputs joined as `packed` joins them; each has limits of its own, however large the others are."""
    parts = [found.pop(PART + name) for name in shapes]
    expected = torch.cat([torch.empty(0, dtype=torch.float64), *(part.expected.flatten() for part in parts)])
    limit = torch.cat([torch.empty(0, dtype=torch.float64), *(part.limit.flatten() for part in parts)])
    return {"output": Expectation(expected, limit), **found}


def _results(
    operation: str, made: Callable[..., Tensor], case: Case, dtype: torch.dtype, backward: bool
) -> dict[str, Tensor]:
    """What the reference makes of the case's numbers: "output", or each of several, and the gradients by name."""
    inputs = inputs_of(operation, case)
    leaves: dict[str, Tensor] = {}
    for name, tensor in inputs.items():
        if name in OPERATIONS[operation].constants:
            with _disable_current_modes():  # a target of 1 stays 1 under random roundings
                inputs[name] = tensor.to(dtype)
        elif tensor.is_floating_point():
            inputs[name] = tensor.to(dtype, copy=True)
            if backward and differentiable(operation, name, tensor):
                leaves[name] = inputs[name].requires_grad_()
    output = packed(call_with(operation, made, inputs), case.shapes)
    if case.shapes is None:
        results = {"output": output.detach()}
    else:
        results = {PART + name: part for name, part in unpacked(output.detach(), case.shapes).items()}
    if isinstance(made, nn.Module):
        leaves |= {name: parameter for name, parameter in made.named_parameters() if parameter.requires_grad}
    if backward and leaves and output.requires_grad:
        gradients = torch.autograd.grad(output, list(leaves.values()), case["grad_output"].to(dtype), allow_unused=True)
        results |= {name: g for name, g in zip(leaves, gradients, strict=True) if g is not None}
    return results


def gradients_of_reference(operation: str, case: Case) -> dict[str, Tensor]:
    """Of the case's numbers in float64, by name."""
    made = reference_callable(operation, case, torch.float64)
    found = _results(operation, made, case, torch.float64, backward=True)
    return {name: each for name, each in found.items() if name != "output" and not name.startswith(PART)}


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if len(parts) == len(present) > 1 else (parts[0] if len(parts) == 1 else None)


def _state(made: Any) -> dict[str, Tensor]:
    if not isinstance(made, nn.Module):
        return {}
    return dict(made.named_parameters()) | dict(made.named_buffers())
