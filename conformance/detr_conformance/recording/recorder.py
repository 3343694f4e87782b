"""Saves the arguments of calls as they happen: the first, the largest, every n-th, and those that go wrong."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.harness.case import PARAMETER, Case
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.recording.calls import write_call
from detr_conformance.target import TargetError

EVERY, MOST = 100, 50
Parameters = Mapping[str, Tensor] | Callable[[], Mapping[str, Tensor]]


class Recording:
    """Calls that are being recorded; in place of the function it is called itself, on a module it sits until removed.

    Attributes:
        calls: how many there were.
        saved: the files written, in their order.
    """

    def __init__(
        self,
        what: Callable[..., Any],
        folder: Path,
        operation: str,
        names: Mapping[str, str],
        parameters: Parameters,
        options: Mapping[str, str],
        every: int,
        most: int,
    ) -> None:
        self.what = what
        self.function = what.forward if isinstance(what, nn.Module) else what
        self.signature = inspect.signature(self.function)
        self.folder, self.operation, self.names = folder, operation, names
        self.parameters, self.options, self.every, self.most = parameters, options, every, most
        self.calls, self.largest = 0, -1
        self.saved: list[Path] = []
        if isinstance(what, nn.Module):
            what.forward = self.__call__

    def __call__(self, *positional: Any, **named: Any) -> Any:
        if torch.compiler.is_compiling():
            return self.function(*positional, **named)
        call = self._case(positional, named)
        why = self._why(call)
        if why:
            self._save(call, why)  # before the call may change its arguments
        try:
            output = self.function(*positional, **named)
        except Exception as error:
            self._save(call, f"raised {type(error).__name__}")
            raise
        if not why and not _finite(output):
            self._save(call, "gave numbers that are not finite")
        return output

    def _why(self, call: Case) -> str | None:
        self.calls += 1
        if call.size > self.largest:
            first, self.largest = self.largest < 0, call.size
            return "the first call" if first else f"the largest of {self.calls} calls"
        return f"call {self.calls}" if self.calls % self.every == 0 else None

    def _save(self, call: Case, why: str) -> None:
        if len(self.saved) < self.most:
            path = write_call(self.folder, self.operation, call, why)
            self.saved += [path] if path not in self.saved else []

    def _case(self, positional: tuple[Any, ...], named: Mapping[str, Any]) -> Case:
        given = self.signature.bind(*positional, **named).arguments
        ours = {self.names.get(name, name): value for name, value in given.items()}
        about = OPERATIONS[self.operation]
        if self.operation == "ms_deform_attn" and "spatial_shapes" in ours and ours.get("level_start_index") is None:
            cells = _tensor(ours["spatial_shapes"]).prod(-1)
            ours["level_start_index"] = cells.cumsum(0) - cells
        tensors = {name: _tensor(ours[name]) for name in about.inputs if ours.get(name) is not None}
        if about.kind == "function" and (missing := _required(self.operation) - tensors.keys()):
            raise TargetError(
                f"the recorded call has no {', '.join(sorted(missing))}; its arguments are {', '.join(given)}: "
                f'say which is which by names={{"theirs": "{min(missing)}"}}'
            )
        settings = {name: json.dumps(ours[name]) for name in about.settings if isinstance(ours.get(name), _PLAIN)}
        dense = all(tensor.is_contiguous() for tensor in tensors.values() if tensor.is_floating_point())
        layout = "contiguous" if dense else "transposed"
        state = self.parameters() if callable(self.parameters) else self.parameters
        tensors |= {PARAMETER + name: tensor for name, tensor in state.items()}
        return Case(tensors, layout, options={**self.options, **settings})

    # -- until when -------------------------------------------------------------------------------------------

    def remove(self) -> None:
        """The module is again as it was."""
        if isinstance(self.what, nn.Module):
            self.what.__dict__.pop("forward", None)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()


_PLAIN = (bool, int, float, str, list, tuple)


def record(
    what: Callable[..., Any],
    folder: str | Path,
    *,
    operation: str | None = None,
    names: Mapping[str, str] | None = None,
    config: Any = None,
    state_dict: Parameters | None = None,
    every: int = EVERY,
    most: int = MOST,
) -> Recording:
    """Saves calls of `what` into `folder`, for `detr-spec check TARGET --cases FOLDER`.

    The first call is saved, each that is larger than all before, every n-th, and those that raise or whose output is
    not finite. Tensors are saved on the CPU, with a note if their memory is strided; a list of (h, w) in the place of a
    tensor becomes one.

        recorded = record(ms_deform_attn, "calls")              # a function: call `recorded` in its place
        with record(model.encoder.layers[0].self_attn.attn, "calls", operation="ms_deform_attn", names={...}): ...

    Args:
        what: a function, or an nn.Module whose forward is watched until `remove()` or the end of the `with` block.
        operation: which operation of the spec it is; by default the one of the function's name.
        names: the caller's argument names -> the operation's, where they differ. Other arguments are left out.
        config: of an operation that is a module: the reference's configuration.
        state_dict: of an operation that is a module: its parameters under the reference's names, as they are at each
            call; a function that returns them where they are not the same tensors all the time.
        every, most: every how many calls one is saved, and how many at most.

    Returns:
        The recording: `calls` made, files `saved`, and `remove()`.

    Raises:
        TargetError: no such operation, or a module without its configuration; at the first call: an argument of the
            operation is missing.
    """
    name = operation or str(getattr(what, "__name__", type(what).__name__))
    if name not in OPERATIONS:
        close = difflib.get_close_matches(name, OPERATIONS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"say operation=... one of: {', '.join(OPERATIONS)}"
        raise TargetError(f"{name!r} is no operation; {hint}")
    about = OPERATIONS[name]
    if about.kind == "module" and (config is None or state_dict is None):
        raise TargetError(f"{name} is a module: say config=... and state_dict=..., in the reference's form")
    if config is not None and not dataclasses.is_dataclass(config):
        wanted = (about.config or "").rpartition(":")[2]
        raise TargetError(f"config is a {type(config).__name__}; {name} is described by detr_reference.{wanted}")
    options = {key: json.dumps(value) for key, value in vars(config).items()} if config is not None else {}
    return Recording(what, Path(folder), name, names or {}, state_dict or {}, options, max(1, every), most)


def _tensor(value: Any) -> Tensor:
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.int64)
    return tensor.detach()


def _required(operation: str) -> set[str]:
    parameters = inspect.signature(resolve(OPERATIONS[operation].reference)).parameters
    wanted = {name for name, each in parameters.items() if each.default is each.empty}
    return wanted & set(OPERATIONS[operation].inputs)


def _finite(output: Any) -> bool:
    if isinstance(output, Tensor):
        return not output.is_floating_point() or bool(output.isfinite().all())
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else ()
    return all(map(_finite, values))
