"""Calls in another process as nodes of this one's graph: their backward passes happen there too, to any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from detr_conformance.isolation import ambient
from detr_conformance.isolation.client import Client, RaisedThere, Returned
from detr_conformance.isolation.mirrors import Mirror
from detr_conformance.isolation.values import decode


@dataclass
class Job:
    """A step, and the tensors that it depends on, in whatever they are packed."""

    client: Client
    step: Callable[[], dict[str, Any]]
    given: Any
    order: int = 0  # how often something was differentiated in it


@dataclass
class Outcome:
    """What comes out of a job beside its tensors: how these are packed, and their counterparts."""

    returned: Returned | None = None
    names: tuple[str, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    ambient: ambient.Ambient = field(default_factory=dict)


def call(job: Job) -> Any:
    """Does the step; the result hangs in the graph if something that it depends on asks for gradients."""
    inputs = [each for each in tensors_in(job.given) if each.requires_grad]
    state, outcome, mirrors = ambient.read(), Outcome(), job.client.mirrors
    try:
        if inputs and torch.is_grad_enabled():
            outputs = Node.apply(job, state, outcome, *inputs)
            outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        else:
            outputs = _done(job, state, outcome)
    finally:
        ambient.take(outcome.ambient)
    assert outcome.returned is not None
    tensors = dict(zip(outcome.names, outputs or (), strict=True))

    def tensor_of(name: Any) -> Tensor:
        if isinstance(name, dict):
            return _unreadable(name)
        # An argument that is handed back is another tensor on the same memory, as autograd wants it.
        return tensors[name] if name in tensors else mirrors.tensor(name).detach()

    with job.client.lock:
        for (name, tensor), mirror in zip(tensors.items(), outcome.mirrors, strict=True):
            if outcome.returned.tensors[name][2]["requires_grad"] and not tensor.requires_grad:
                _claim_gradients(tensor)
            mirrors.remember(tensor, mirror)
        return decode(outcome.returned.coded, tensor_of)


def _unreadable(described: dict[str, Any]) -> Tensor:
    """A tensor without numbers: its form is all that can be judged."""
    shape, dtype = described["shape"], getattr(torch, str(described["dtype"]).removeprefix("torch."), torch.float32)
    if "sparse" in str(described["unreadable"]):
        return torch.empty(shape, dtype=dtype, layout=torch.sparse_coo)
    return torch.empty(shape, dtype=dtype, device="meta")


def _claim_gradients(tensor: Tensor) -> None:
    if tensor.is_floating_point() and not tensor.is_inference():
        tensor.requires_grad_()


def _done(job: Job, state: ambient.Ambient, outcome: Outcome) -> tuple[Tensor, ...]:
    try:
        outcome.returned = job.client.run(job.step, state)
    except RaisedThere as raised:
        outcome.ambient = raised.ambient
        raise
    outcome.ambient = outcome.returned.ambient
    found = outcome.returned.tensors
    outcome.names, outcome.mirrors = tuple(found), tuple(mirror for _, mirror, _ in found.values())
    return tuple(tensor for tensor, _, _ in found.values())


class Node(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: Job, state: ambient.Ambient, outcome: Outcome, *inputs: Tensor) -> Any:
        outputs = _done(job, state, outcome)
        assert outcome.returned is not None
        found = outcome.returned.tensors.values()
        constant = [tensor for tensor, _, described in found if not described["requires_grad"]]
        ctx.mark_non_differentiable(*constant)
        ctx.set_materialize_grads(False)
        # Not by save_for_backward: whether an argument may have changed since is for the target to notice.
        ctx.job, ctx.inputs, ctx.mirrors = job, inputs, outcome.mirrors
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        reached = [(mirror, each) for mirror, each in zip(ctx.mirrors, gradients, strict=True) if each is not None]
        wanted = [each for each, needed in zip(ctx.inputs, ctx.needs_input_grad[3:], strict=True) if needed]
        if not reached or not wanted:
            return (None,) * (3 + len(ctx.inputs))
        client, again = ctx.job.client, torch.is_grad_enabled()
        incoming = [each for _, each in reached]

        def step() -> dict[str, Any]:
            return {
                "do": "backward",
                "outputs": {"list": [{"tensor": mirror.name} for mirror, _ in reached]},
                "gradients": client.coded(incoming),
                "inputs": client.coded(wanted),
                "create_graph": again,
                "order": ctx.job.order + 1,
            }

        found = iter(call(Job(client, step, (incoming, list(ctx.inputs)), ctx.job.order + 1)))
        return (None, None, None, *(next(found) if needed else None for needed in ctx.needs_input_grad[3:]))


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in tuples, lists and dicts, each once."""
    found: dict[int, Tensor] = {}

    def look(each: Any) -> None:
        if isinstance(each, Tensor):
            found[id(each)] = each
        elif isinstance(each, dict):
            look(list(each.values()))
        elif isinstance(each, list | tuple):
            for inner in each:
                look(inner)

    look(value)
    return list(found.values())
