"""Properties of whole models that take more than one comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.harness.block import (
    expectations,
    forward,
    make,
    outputs,
    parameters_by_name,
    parts,
    run,
    seeded,
)
from detr_conformance.harness.block_case import call_with, inputs_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import Mismatch, check_form, expect
from detr_conformance.harness.subject import Subject, explained
from detr_conformance.staging.divergence import look

Reached = dict[str, float]
SMALL_PART = 0.01  # of a gradient's norm


def stages_agree(subject: Subject, case: Case) -> None:
    """Every stage that the target names lies within its limits."""
    found = look(subject, case)
    *before, worst = found.stages
    subject.worst_ratio = max(subject.worst_ratio or 0.0, *(each.ratio for each in found.stages if each.agrees), 0.0)
    if not worst.agrees:
        said = [f"stage {worst.name} diverges first, {worst.message}", *found.told_of_the_last()]
        said += [f"stages before it (error / limit): {', '.join(map(str, before)) or 'none'}"]
        raise Mismatch("; ".join(said), where=worst.name)


def part_agrees(subject: Subject, case: Case, *names: str) -> None:
    """Some of the outputs lie within their limits, whatever the others do."""
    parts_agree(subject, case, outputs(subject, case), names)


def parts_agree(
    subject: Subject, case: Case, found: Mapping[str, Tensor], names: Iterable[str], where: str = ""
) -> None:
    """What was found under these names lies within the limits of the case."""
    right = expectations(subject, case, backward=False)["output"]
    expected, limits = parts(case, right.expected), parts(case, right.limit)
    for name in names:
        subject.compare(f"{name}{where}", found[name], expected[name], limits[name])


def training(subject: Subject, case: Case) -> Any:
    """The target's module with the case's parameters, in training mode.

    Raises:
        Mismatch: it is no nn.Module.
    """
    module = make(subject, case)
    if not isinstance(module, nn.Module):
        raise Mismatch(f"a model that can be trained is an nn.Module, not a {type(module).__name__}")
    return module.train()


def trained_outputs(subject: Subject, case: Case) -> dict[str, Tensor]:
    """All that the model returns in training mode, with the seed of the run."""
    module = training(subject, case)
    with seeded(subject):
        return outputs(subject, case, module)


def reached(subject: Subject, case: Case, output: str, layer: int | None, *, train: bool = False) -> Reached:
    """The largest gradient that each trained parameter gets from one output (or one layer of it); 0 if none."""
    module = training(subject, case) if train else make(subject, case)
    own = parameters_by_name(subject.operation, module, case)
    inputs = {name: tensor.to(subject.device) for name, tensor in inputs_of(subject.operation, case).items()}
    with seeded(subject), explained("the call"):
        found = call_with(subject.operation, module, inputs)
        wanted = found[output] if layer is None else found[output][layer]
        weights = torch.linspace(0.5, 1.5, wanted.numel(), dtype=wanted.dtype, device=wanted.device)
        total = (wanted.flatten() * weights).sum()
        leaves = {f"{name}/{i}": part for name, several in own.items() for i, part in enumerate(several)}
        if not total.requires_grad:
            return dict.fromkeys(own, 0.0)
        gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    largest: Reached = {}
    for name, gradient in zip(leaves, gradients, strict=True):
        size = 0.0 if gradient is None else float(gradient.abs().max())
        whole = name.partition("/")[0]
        largest[whole] = max(largest.get(whole, 0.0), size)
    return largest


def expect_reached(found: Reached, prefixes: Iterable[str], what: str) -> None:
    """Some parameter under every prefix gets a gradient that is not zero."""
    for prefix in prefixes:
        sizes = [size for name, size in found.items() if name.startswith(prefix)]
        expect(
            any(size > 0 for size in sizes),
            f"{what} does not reach {prefix}",
            where=prefix,
            expected="a gradient",
            got="zero",
        )


def expect_unreached(found: Reached, prefixes: Iterable[str], what: str) -> None:
    """Every gradient under these prefixes is exactly zero."""
    for prefix in prefixes:
        for name, size in found.items():
            if name.startswith(prefix):
                expect(size == 0, f"{what} reaches {name}", where=name, expected="0", got=f"{size:.3g}")


def gradients_agree_in_norm(subject: Subject, case: Case) -> None:
    """The output lies within its limits, and each gradient is off by a small part of its norm.

    In a deep model a rounding crosses the kink of some ReLU, which changes a few elements by more than their limit, and
    a whole tensor by little; what is detached changes much.
    """
    right, result = expectations(subject, case), run(subject, case)
    subject.compare("output", result.output, right["output"].expected, right["output"].limit)
    for name in right.keys() - {"output"}:
        got = subject.gradient(name, result.gradients).detach().cpu().double()
        check_form(f"grad_{name}", got, right[name].expected)
        norm = float(right[name].expected.norm())
        allowed = float(right[name].limit.norm()) + SMALL_PART * norm
        off = float((got - right[name].expected).norm())
        expect(
            off <= allowed,
            f"grad_{name}: its error has the norm {off:.3g}, its own norm is {norm:.3g}",
            where=f"grad_{name}",
            limit=f"{allowed:.3g}",
        )


def permuted_agrees(subject: Subject, case: Case, parameter: str) -> None:
    """Queries in another order: their predictions come in that order, and are otherwise what they were."""
    order = torch.arange(case[parameter].shape[0]).roll(2)
    turned = case.having(**{parameter: case[parameter][order]})
    right = expectations(subject, case, backward=False)["output"]
    expected, limits, got = (parts(case, t) for t in (right.expected, right.limit, forward(subject, turned)))
    for name in expected:
        want, limit = expected[name][:, :, order], 2 * limits[name][:, :, order]
        subject.compare(f"{name}, queries in another order", got[name], want, limit)


def unused_parameters(subject: Subject, case: Case) -> list[str]:
    """Those that no output of a training call has in its graph: DistributedDataParallel would wait for them."""
    module = training(subject, case)
    own = parameters_by_name(subject.operation, module, case)
    inputs = {name: tensor.to(subject.device) for name, tensor in inputs_of(subject.operation, case).items()}
    with seeded(subject), explained("the call"):
        found = call_with(subject.operation, module, inputs)
        total = torch.stack([tensor.sum() for tensor in found.values() if tensor.requires_grad]).sum()
        leaves = [(name, part) for name, several in own.items() for part in several]
        gradients = torch.autograd.grad(total, [part for _, part in leaves], allow_unused=True)
    return sorted({name for (name, _), gradient in zip(leaves, gradients, strict=True) if gradient is None})
