"""Blocks exported by torch.onnx and run by ONNX Runtime, forward only: what a deployed model computes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.adapters.arrays import flattened, restored
from detr_conformance.adapters.compilers import EXPORTING
from detr_conformance.adapters.numpy_arrays import array_of, tensor_of
from detr_conformance.operations import OPERATIONS
from detr_conformance.target import Target

Session = Callable[[Sequence[Tensor]], list[Any]]


def onnxruntime(target: Target, name: str | None = None, *, static: tuple[int, ...] = ()) -> Target:
    """What a target of torch provides, exported to ONNX and run by ONNX Runtime on the CPU.

    Sizes are dynamic where the exporter can; a call that no exported graph takes is exported anew, and parameters are
    inputs of the graph. Check it with `--shapes few`: an export takes seconds.

    Args:
        static: places of arguments that functions take as tuples of Python numbers, which become a part of the graph,
            such as (1, 2) for the shapes and starts of levels.
    """
    import onnxruntime
    import onnxscript  # noqa: F401  the exporter's; where one is missing, the target says so when it is loaded

    def load(model: bytes) -> Session:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]
        return lambda tensors: session.run(None, dict(zip(names, map(array_of, tensors), strict=True)))

    return deployed(target, name or f"onnxruntime-{target.name}", load, static)


def openvino(target: Target, name: str | None = None, *, static: tuple[int, ...] = ()) -> Target:
    """The same in OpenVINO, in full precision: left to itself, it may compute in bfloat16 or float16."""
    import onnxscript  # noqa: F401
    import openvino as runtime

    core = runtime.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}

    def load(model: bytes) -> Session:
        compiled = core.compile_model(core.read_model(model), "CPU", settings)

        def run(tensors: Sequence[Tensor]) -> list[Any]:
            found = compiled.create_infer_request().infer([array_of(each.contiguous()) for each in tensors])
            return [found[place].copy() for place in range(len(compiled.outputs))]

        return run

    return deployed(target, name or f"openvino-{target.name}", load, static)


def deployed(target: Target, name: str, load: Callable[[bytes], Session], static: tuple[int, ...] = ()) -> Target:
    """The target's operations as ONNX graphs in a runtime, which `load` makes a session of."""
    provides: dict[str, Callable[..., Any]] = {}
    for operation, made in target.provides.items():
        module = OPERATIONS[operation].kind == "module"
        provides[operation] = _Modules(made, load) if module else Exported(made, load, static)
    kept = tuple(feature for feature in target.features if feature == "deterministic")
    return replace(target, name=name, provides=provides, devices=("cpu",), features=kept, deviations=None, stages=None)


@dataclass
class Graph:
    """An exported graph in its runtime, and which sizes it takes: a number is fixed, equal names are equal sizes."""

    run: Session
    shapes: list[list[Any]]
    form: Any

    def takes(self, tensors: Sequence[Tensor]) -> bool:
        sizes: dict[Any, int] = {}
        for said, tensor in zip(self.shapes, tensors, strict=True):
            for name, size in zip(said, tensor.shape, strict=True):
                if size != (name if isinstance(name, int) else sizes.setdefault(name, size)):
                    return False
        return True


@dataclass
class Exported:
    """A function of tensors, which runs in the runtime alone; exported at the first call of each form."""

    function: Callable[..., Any]
    load: Callable[[bytes], Session]
    static: tuple[int, ...] = ()
    graphs: dict[Any, list[Graph]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.__wrapped__ = self.function  # the signature to show

    def __call__(self, *positional: Any, **named: Any) -> Any:
        given = [_numbers(each.tolist()) if place in self.static else each for place, each in enumerate(positional)]
        return self.called(self.function, given, named)

    def called(self, function: Callable[..., Any], positional: Sequence[Any], named: Mapping[str, Any]) -> Any:
        found: list[Tensor] = []
        form = [_form(each, found) for each in positional], {key: _form(each, found) for key, each in named.items()}
        key = repr((form, [(each.dtype, each.ndim) for each in found]))
        with EXPORTING:
            known = self.graphs.setdefault(key, [])
            graph = next((each for each in known if each.takes(found)), None)
            if graph is None:
                graph = _exported(_Flat(function, form), found, self.load)
                known.append(graph)
        return restored(graph.form, iter([tensor_of(each) for each in graph.run(found)]))


def _numbers(nested: Any) -> Any:
    return tuple(map(_numbers, nested)) if isinstance(nested, list) else nested


@dataclass
class _Modules:
    """A factory; modules of one configuration share their graphs."""

    factory: Callable[..., Any]
    load: Callable[[bytes], Session]
    graphs: dict[str, Exported] = field(default_factory=dict)

    def __call__(self, config: Any, state_dict: Mapping[str, Tensor] | None) -> Callable[..., Any]:
        module: nn.Module = self.factory(config, state_dict).eval()
        if state_dict:
            module.to(next(iter(state_dict.values())).dtype)
        state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        exported = self.graphs.setdefault(repr(config), Exported(module, self.load))

        def call(*positional: Any, **named: Any) -> Any:
            def whole(parameters: Sequence[Tensor], *inputs: Any, **others: Any) -> Any:
                given = dict(zip(state, parameters, strict=True))
                return torch.func.functional_call(module, given, inputs, others)

            return exported.called(whole, (list(state.values()), *positional), named)

        return call


class _Mark:
    def __repr__(self) -> str:
        return "tensor"


_TENSOR = _Mark()


def _form(each: Any, found: list[Tensor]) -> Any:
    """An argument with marks for its tensors, which are appended to `found`."""
    if isinstance(each, Tensor):
        found.append(each.detach())
        return _TENSOR
    return [_form(one, found) for one in each] if isinstance(each, list) else each


def _filled(form: Any, given: Iterator[Tensor]) -> Any:
    if form is _TENSOR:
        return next(given)
    return [_filled(one, given) for one in form] if isinstance(form, list) else form


class _Flat(nn.Module):
    """The function of its tensors alone, as an exporter takes it; what it returns is one list."""

    def __init__(self, function: Callable[..., Any], form: Any) -> None:
        super().__init__()
        self.made, self.form, self.returned = [function], form, None  # in a list: its parameters are inputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        found: list[Tensor] = []
        positional = [_filled(each, given) for each in self.form[0]]
        named = {key: _filled(each, given) for key, each in self.form[1].items()}
        self.returned = flattened(self.made[0](*positional, **named), found)
        return tuple(found)


def _exported(flat: _Flat, tensors: Sequence[Tensor], load: Callable[[bytes], Session]) -> Graph:
    dynamic = tuple(dict.fromkeys(range(each.ndim), torch.export.Dim.AUTO) for each in tensors)
    with _quiet(), torch.no_grad():
        # Not optimised here: the runtime does that, and onnxscript cannot fold a split of a size that is a name.
        how: dict[str, Any] = {"dynamo": True, "dynamic_shapes": (dynamic,), "optimize": False, "verbose": False}
        program = torch.onnx.export(flat, tuple(tensors), **how)
        flat(*tensors)
    assert program is not None
    model = program.model_proto
    shapes = [
        [axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in model.graph.input
    ]
    return Graph(load(model.SerializeToString()), shapes, flat.returned)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's words about packages that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
