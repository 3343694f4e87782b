"""A workload made ready: one set of inputs and parameters, and any implementation called with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from detr_bench.agreement import Disagrees
from detr_bench.inputs import GIVEN, Draw, Given, Unforeseen
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
        sizes: of the workload, or of the host's.
        host: the reference's module around a core, if the workload is one inside another.
        parameters: of a module (or host), under the reference's names.
        trained: those of which a gradient is asked.
        cotangents: the gradient of each output, drawn when it is first needed.
    """

    operation: str
    given: Given
    sizes: Any
    device: str
    dtype: torch.dtype
    host: str | None = None
    parameters: dict[str, Tensor] = field(default_factory=dict)
    trained: tuple[str, ...] = ()
    cotangents: dict[str, Tensor] = field(default_factory=dict)
    output_bytes: int = 0
    draw: Unforeseen | None = None

    def asked_gradient(self, name: str) -> bool:
        """Whether a gradient is asked of an input."""
        named = OPERATIONS[self.operation] if self.host is None else None
        constants = (IMAGES, *(named.constants if named else ()))
        return self.given.inputs[name].is_floating_point() and name not in constants

    def renew(self) -> None:
        """Other numbers in new tensors for every floating input, and for the gradients of the outputs."""
        self.draw = self.draw or Unforeseen(self.device)
        with torch.device(self.device):
            drawn = GIVEN[self.host or self.operation](self.sizes, self.draw)
        for name, tensor in drawn.inputs.items():
            if tensor.is_floating_point():
                self.given.inputs[name] = _to(tensor, self.device, self.dtype)
        for name, tensor in self.cotangents.items():
            self.cotangents[name] = self.draw.normal(*tensor.shape).to(tensor)

    def least_bytes(self, direction: str) -> int:
        """What any implementation has to move: each output written once, of the gradients those of the inputs."""
        outputs = self.output_bytes
        leaves = sum(tensor.nbytes for name, tensor in self.given.inputs.items() if self.asked_gradient(name))
        backward = outputs + leaves
        return {"forward": outputs, "backward": backward, "both": outputs + backward}[direction]

    def rounded(self) -> Scene:
        """Each number of the inputs and parameters moved by at most a unit in its last place."""
        inputs = {name: _rounded(tensor) for name, tensor in self.given.inputs.items()}
        parameters = {name: _rounded(tensor) for name, tensor in self.parameters.items()}
        return replace(self, given=Given(inputs, self.given.config), parameters=parameters)

    def gradients_of(self, outputs: Mapping[str, Tensor]) -> list[Tensor]:
        for name, output in outputs.items():
            if name not in self.cotangents:
                self.cotangents[name] = torch.randn_like(output)
            if (right := self.cotangents[name].shape) != output.shape:
                raise Disagrees(f"at this size {name} is {tuple(output.shape)}, not {tuple(right)}")
        return [self.cotangents[name] for name in outputs]


def make_scene(operation: str, sizes: Sizes, device: str, dtype: torch.dtype) -> Scene:
    """Inputs and untrained parameters of a workload on a device."""
    inner = sizes.sizes if isinstance(sizes, Inside) else sizes
    host = sizes.host if isinstance(sizes, Inside) else None
    given = GIVEN[host or operation](inner, Draw())
    inputs = {name: _to(tensor, device, dtype) for name, tensor in given.inputs.items()}
    scene = Scene(operation, Given(inputs, given.config), inner, device, dtype, host)
    if given.config is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = _reference_module(scene)
            state = _off_kinks(module.state_dict())
        scene.trained = tuple(name for name, parameter in module.named_parameters() if parameter.requires_grad)
        scene.parameters = {name: _to(tensor, device, dtype) for name, tensor in state.items()}
    return scene


@dataclass
class Call:
    """An implementation with everything that it needs.

    Attributes:
        module: if the operation is one.
        inputs: copies of the scene's, for this implementation alone.
        found: its parameters, once they were asked for.
    """

    scene: Scene
    function: Callable[..., Any]
    module: Any = None
    inputs: dict[str, Tensor] = field(default_factory=dict)
    found: dict[str, tuple[Tensor, ...]] | None = None

    def renew(self) -> None:
        """New tensors with the scene's present numbers; those without a fraction (sizes, masks) stay what they are."""
        for name, tensor in self.scene.given.inputs.items():
            if tensor.is_floating_point():
                self.inputs[name] = tensor.clone().requires_grad_(self.scene.asked_gradient(name))
            else:
                self.inputs.setdefault(name, tensor.clone())

    def leaves(self) -> dict[str, Tensor]:
        """The inputs of which a gradient is asked."""
        return {name: tensor for name, tensor in self.inputs.items() if tensor.requires_grad}

    def outputs(self) -> dict[str, Tensor]:
        """The floating outputs by name."""
        found = self.function(self.inputs)
        named = found if isinstance(found, Mapping) else {"output": found}
        return {name: tensor for name, tensor in sorted(named.items()) if tensor.is_floating_point()}

    def parameters(self) -> dict[str, tuple[Tensor, ...]]:
        """Those that the reference trains, under its names, each in the parts that this module cuts it into.

        Raises:
            Disagrees: the module has none of that name.
        """
        if self.found is None:
            self.found = {name: self._parameter(name) for name in self.scene.trained}
        return self.found

    def _parameter(self, name: str) -> tuple[Tensor, ...]:
        if hasattr(self.module, "spec_parameters"):
            said = self.module.spec_parameters()[name]
            return said if isinstance(said, tuple) else (said,)
        own = dict(self.module.named_parameters()) if isinstance(self.module, nn.Module) else {}
        matches = [name] if name in own else [key for key in own if key.endswith(f".{name}")]
        if len(matches) != 1:
            raise Disagrees(f"the module has {len(matches)} parameters named {name}: its gradient cannot be read")
        return (own[matches[0]],)

    def gradients(self, outputs: Mapping[str, Tensor]) -> dict[str, tuple[Tensor | None, ...]]:
        """Of the inputs, then of the parameters, in the parts that these are cut into."""
        wanted: dict[str, tuple[Tensor, ...]] = {f"grad_{name}": (leaf,) for name, leaf in self.leaves().items()}
        wanted |= {f"grad_{name}": parts for name, parts in self.parameters().items()}
        flat = [part for parts in wanted.values() for part in parts]
        cotangents = self.scene.gradients_of(outputs)
        found = iter(torch.autograd.grad(list(outputs.values()), flat, cotangents, allow_unused=True))
        return {name: tuple(next(found) for _ in parts) for name, parts in wanted.items()}


def joined(gradients: Mapping[str, tuple[Tensor | None, ...]]) -> dict[str, Tensor]:
    """Those that there are, the parts of a parameter together."""
    present = {name: [part for part in parts if part is not None] for name, parts in gradients.items()}
    return {name: parts[0] if len(parts) == 1 else torch.cat(parts) for name, parts in present.items() if parts}


def make_call(scene: Scene, implementation: Callable[..., Any]) -> Call:
    """The implementation, a function or a module's factory, with the scene's inputs; a module in evaluation mode."""
    if scene.given.config is None:
        names = OPERATIONS[scene.operation].arguments
        call = Call(scene, lambda inputs: implementation(*(inputs[name] for name in names)))
    else:
        parameters = {name: tensor.clone() for name, tensor in scene.parameters.items()}
        if scene.host is None:
            module = implementation(scene.given.config, parameters)
        else:
            module = _host(scene.host, scene.given.config, implementation)
            module.to(next(t for t in parameters.values() if t.is_floating_point())).load_state_dict(parameters)
        if isinstance(module, nn.Module):
            module.to(next(iter(scene.given.inputs.values())).device).eval()
        call = Call(scene, lambda inputs: module(**inputs), module)
    call.renew()
    return call


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


def _rounded(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return torch.addcmul(tensor, tensor, 2 * torch.rand_like(tensor) - 1, value=torch.finfo(tensor.dtype).eps)


def _to(tensor: Tensor, device: str, dtype: torch.dtype) -> Tensor:
    return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
