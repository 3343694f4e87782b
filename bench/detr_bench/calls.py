"""A workload made ready: one set of inputs and parameters, and any implementation called with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from detr_bench.inputs import GIVEN, Draw, Given
from detr_bench.workloads import Inside, Sizes
from detr_conformance.operations import OPERATIONS, resolve
from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.transformer.deformable_layer import DeformableEncoderLayer

IMAGES = "images"  # no gradient is asked of them


@dataclass
class Scene:
    """What all implementations of an operation are given.

    Attributes:
        operation: the operation's id.
        host: the reference's module around a core, if the workload is one inside another.
        parameters: of a module (or host), under the reference's names.
        cotangents: the gradient of each output, drawn when it is first needed.
    """

    operation: str
    given: Given
    host: str | None = None
    parameters: dict[str, Tensor] = field(default_factory=dict)
    cotangents: dict[str, Tensor] = field(default_factory=dict)

    def leaves(self) -> dict[str, Tensor]:
        """The inputs of which a gradient is asked."""
        named = OPERATIONS[self.operation] if self.host is None else None
        constants = (IMAGES, *(named.constants if named else ()))
        return {n: t for n, t in self.given.inputs.items() if t.is_floating_point() and n not in constants}

    def gradients_of(self, outputs: Mapping[str, Tensor]) -> list[Tensor]:
        for name, output in outputs.items():
            if name not in self.cotangents:
                self.cotangents[name] = torch.randn_like(output)
        return [self.cotangents[name] for name in outputs]


def make_scene(operation: str, sizes: Sizes, device: str, dtype: torch.dtype) -> Scene:
    """Inputs and untrained parameters of a workload on a device."""
    inner = sizes.sizes if isinstance(sizes, Inside) else sizes
    host = sizes.host if isinstance(sizes, Inside) else None
    given = GIVEN[host or operation](inner, Draw())
    inputs = {name: _to(tensor, device, dtype) for name, tensor in given.inputs.items()}
    scene = Scene(operation, Given(inputs, given.config), host)
    if given.config is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            state = _off_kinks(_reference_module(scene).state_dict())
        scene.parameters = {name: _to(tensor, device, dtype) for name, tensor in state.items()}
    for leaf in scene.leaves().values():
        leaf.requires_grad_()
    return scene


@dataclass
class Call:
    """An implementation with everything that it needs."""

    scene: Scene
    function: Callable[[], Any]
    parameters: tuple[Tensor, ...] = ()

    def outputs(self) -> dict[str, Tensor]:
        """The floating outputs by name."""
        found = self.function()
        named = found if isinstance(found, Mapping) else {"output": found}
        return {name: tensor for name, tensor in sorted(named.items()) if tensor.is_floating_point()}

    def gradients(self, outputs: Mapping[str, Tensor]) -> tuple[Tensor | None, ...]:
        """Of the inputs, then of the parameters."""
        wanted = (*self.scene.leaves().values(), *self.parameters)
        cotangents = self.scene.gradients_of(outputs)
        return torch.autograd.grad(list(outputs.values()), wanted, cotangents, allow_unused=True)


def make_call(scene: Scene, implementation: Callable[..., Any]) -> Call:
    """The implementation, a function or a module's factory, with the scene's inputs; a module in evaluation mode."""
    if scene.given.config is None:
        arguments = [scene.given.inputs[name] for name in OPERATIONS[scene.operation].arguments]
        return Call(scene, lambda: implementation(*arguments))
    parameters = {name: tensor.clone() for name, tensor in scene.parameters.items()}
    if scene.host is None:
        module = implementation(scene.given.config, parameters)
    else:
        module = _host(scene.host, scene.given.config, implementation)
        module.to(next(t for t in parameters.values() if t.is_floating_point())).load_state_dict(parameters)
    trained: tuple[Tensor, ...] = ()
    if isinstance(module, nn.Module):
        module.to(next(iter(scene.given.inputs.values())).device).eval()
        trained = tuple(p for p in module.parameters() if p.requires_grad)
    return Call(scene, lambda: module(**scene.given.inputs), trained)


def reference_of(operation: str) -> Callable[..., Any]:
    """The reference's own callable."""
    made: Callable[..., Any] = resolve(OPERATIONS[operation].reference)
    return made


def _reference_module(scene: Scene) -> nn.Module:
    if scene.host is not None:
        return _host(scene.host, scene.given.config, ms_deform_attn)
    module: nn.Module = reference_of(scene.operation)(scene.given.config)
    return module


def _host(name: str, config: Any, core: Callable[..., Any]) -> nn.Module:
    if name == "encoder-layer":
        return DeformableEncoderLayer(config, core)
    module: nn.Module = reference_of(name)(config, core=core)
    return module


def _off_kinks(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """New sampling offsets are whole cells, where gradients jump: two right implementations may differ there."""
    return {n: t + 0.05 * torch.randn_like(t) if "sampling_offsets" in n else t for n, t in state.items()}


def _to(tensor: Tensor, device: str, dtype: torch.dtype) -> Tensor:
    return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
