"""One operation of a target on one device and dtype, called with distrust."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr_conformance.evidence.reached import Reached
from detr_conformance.harness.case import TORCH_DTYPES, Case, lay_out
from detr_conformance.harness.few_shapes.budget import Forms
from detr_conformance.harness.mismatch import Mismatch, Raised, check_form, compare, compare_exactly
from detr_conformance.harness.packing import Shapes, packed, unpacked
from detr_conformance.isolation import ambient
from detr_conformance.isolation.client import RaisedThere
from detr_conformance.isolation.poison import poison
from detr_conformance.isolation.process import Died
from detr_conformance.operations import VARIANTS
from detr_conformance.target import NO_GRADIENT


@dataclass(frozen=True)
class Calls:
    """Recorded calls, which are judged in the place of the suite's own cases.

    Attributes:
        cases: those of the subject's operation and dtype.
        smaller: parts of a call that are calls too.
    """

    cases: Sequence[Case]
    smaller: Callable[[Case], Iterator[Case]]


@dataclass(frozen=True)
class Settings:
    """What a run was asked for."""

    profile: str = "standard"
    seed: int = 0
    shrink: bool = True
    replay: Case | None = None
    calls: Calls | None = None
    few_shapes: bool = False


@dataclass
class Result:
    """What a call returned; gradients by the name of the argument (or parameter)."""

    output: Tensor
    gradients: dict[str, Tensor | None] = field(default_factory=dict)


@dataclass
class Subject:
    """What a test of the suite holds in its hands.

    Attributes:
        operation: the operation's id.
        implementation: the target's callable.
        dtype: the claimed dtype, by name.
        worst_ratio: largest error over its limit so far; None until something was compared with a limit.
        exact: how many results were compared exactly; None if none.
        cases: how many cases were checked.
        reached: sizes of the calls that the implementation received.
        forms: of the run's calls of this operation and dtype, where they are to be few.
        configuration: of the module that is called, as a case's options say it.
    """

    operation: str
    implementation: Callable[..., Any]
    dtype: str = "float32"
    device: str = "cpu"
    features: tuple[str, ...] = ("backward",)
    variants: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, str] | None = None
    settings: Settings = field(default_factory=Settings)
    worst_ratio: float | None = None
    exact: int | None = None
    cases: int = 0
    reached: Reached = field(default_factory=Reached)
    forms: Forms | None = None
    configuration: Mapping[str, str] = field(default_factory=dict)
    shapes: Shapes | None = None  # of the outputs of the case in hand, where there are several
    raw: Any = None  # what the last call returned
    _held: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)  # what it is, itself, and a copy

    @property
    def torch_dtype(self) -> torch.dtype:
        return TORCH_DTYPES[self.dtype]

    @property
    def backward(self) -> bool:
        return "backward" in self.features

    def variant(self, name: str) -> str:
        return self.variants.get(name, VARIANTS[name][0])

    def judged(self, property: Callable[[Subject, Case], None], case: Case) -> float | None:
        """Whether the property holds on a case (it raises if not); the largest error over its limit there."""
        # A held result belongs to the case that made it: each case must fail, or not, by itself.
        self._held.clear()
        self.shapes = case.shapes
        before, self.worst_ratio = self.worst_ratio, None
        try:
            with ambient.kept():
                property(self, case)
            return self.worst_ratio
        except Died as died:
            raise Mismatch(
                died.message, where="process", expected="a result", got=died.got, detail=died.detail
            ) from died
        finally:
            if before is not None:
                self.worst_ratio = max(before, self.worst_ratio or 0.0)

    # -- calling -------------------------------------------------------------------------------------------

    def arguments(self, case: Case) -> dict[str, Tensor]:
        """Fresh tensors of the case on the subject's device, laid out as the case says."""
        arguments = {}
        for name, tensor in case.tensors.items():
            if name == "grad_output":
                continue
            arguments[name] = lay_out(tensor.to(self.device), case.layout)
        return arguments

    def call(self, arguments: dict[str, Tensor]) -> Tensor:
        """Calls the implementation on poisoned memory; afterwards every argument must be what it was, byte for byte,
        and the results of earlier calls of the case too. Several outputs come back as one, see `packing`."""
        if self.forms is not None:
            self.forms.admit(arguments, self.configuration)
        self.reached.count(self.operation, arguments, self.configuration)
        private = {name: tensor.detach().clone() for name, tensor in arguments.items()}
        poison(self.device, {tensor.numel() for tensor in arguments.values()}, self.torch_dtype)
        with explained("the call"), _modes_restored():
            output = self.implementation(*arguments.values())
        for name, tensor in arguments.items():
            if not _same_bytes(tensor, private[name]):
                raise Mismatch(f"the call changed its argument {name}", where=name, kind="arguments")
        self._check_held()
        self.raw = output
        self._held += [("the output", tensor, tensor.detach().clone()) for tensor in self.handed_out()]
        return packed(output, self.shapes)

    def handed_out(self) -> list[Tensor]:
        """The tensors that the last call returned, as they lie in memory."""
        outputs = self.raw.values() if isinstance(self.raw, Mapping) else [self.raw]
        return [output for output in outputs if isinstance(output, Tensor)]

    def forward(self, case: Case) -> Tensor:
        """The output for a case, without gradients; of the form that its incoming gradient has."""
        output = self.call(self.arguments(case))
        check_form("output", output, case["grad_output"])
        return output

    def run(self, case: Case, wanted: tuple[str, ...] | None = None) -> Result:
        """Output, and gradients of the floating arguments named in `wanted` (all by default)."""
        arguments = self.arguments(case)
        floating = {name: t for name, t in arguments.items() if t.is_floating_point()}
        wanted = tuple(floating) if wanted is None else wanted
        for name in wanted:
            floating[name].requires_grad_()
        output = self.call(arguments)
        grad_output = lay_out(case["grad_output"].to(self.device), case.layout)
        gradients = self.pull_back(output, grad_output, {name: floating[name] for name in wanted})
        return Result(output, gradients)

    def pull_back(
        self,
        output: Tensor,
        grad_output: Tensor,
        inputs: dict[str, Tensor],
        retain_graph: bool = False,
        create_graph: bool = False,
    ) -> dict[str, Tensor | None]:
        """The gradients of the inputs; neither they nor grad_output may be changed by the backward pass."""
        check_form("output", output, grad_output)
        if not output.requires_grad:
            raise Mismatch(f"the output asks for {NO_GRADIENT}, and backward is claimed", got=NO_GRADIENT, kind="graph")
        before = grad_output.detach().clone()
        private = {name: tensor.detach().clone() for name, tensor in inputs.items()}
        poison(self.device, {tensor.numel() for tensor in inputs.values()}, self.torch_dtype)
        with explained("backward"), _modes_restored():
            gradients = torch.autograd.grad(
                output,
                list(inputs.values()),
                grad_output,
                retain_graph=retain_graph or create_graph,
                create_graph=create_graph,
                allow_unused=True,
            )
        if not _same_bytes(grad_output, before):
            raise Mismatch("backward changed the gradient of the output", where="grad_output", kind="arguments")
        for name, tensor in inputs.items():
            if not _same_bytes(tensor.detach(), private[name]):
                raise Mismatch(f"backward changed the argument {name}", where=name, kind="arguments")
        self._check_held()
        self._held += [("a gradient", each, each.detach().clone()) for each in gradients if each is not None]
        return dict(zip(inputs, gradients, strict=True))

    def _check_held(self) -> None:
        for what, held, copy in self._held:
            if not _same_bytes(held.detach(), copy):
                raise Mismatch(
                    f"a later call changed {what} of an earlier one", where=what.split()[1], kind="earlier results"
                )

    def drop_held(self) -> None:
        """Forgets earlier outputs, which the test is about to modify itself."""
        self._held.clear()

    def replacing(self, implementation: Callable[..., Any]) -> Subject:
        """The same subject with another callable (a compiled one, say)."""
        return replace(self, implementation=implementation, worst_ratio=None, exact=None, cases=0, _held=[])

    def absorb(self, other: Subject) -> None:
        """Takes over what another subject measured."""
        if other.worst_ratio is not None:
            self.worst_ratio = max(other.worst_ratio, self.worst_ratio or 0.0)

    # -- comparing -----------------------------------------------------------------------------------------

    def compare(self, name: str, got: Tensor, expected: Tensor, limit: Tensor, interval: Tensor | None = None) -> None:
        """`mismatch.compare`, remembering the worst ratio; several outputs one after another, by their names."""
        if self.shapes and name.startswith("output") and expected.ndim == 1:
            check_form(name, got, expected)
            mine, right, limits = (unpacked(tensor, self.shapes) for tensor in (got, expected, limit))
            ratios = [compare(name.replace("output", part, 1), mine[part], right[part], limits[part]) for part in mine]
            ratio = max(ratios)
        else:
            ratio = compare(name, got, expected, limit, interval)
        self.worst_ratio = max(ratio, self.worst_ratio or 0.0)

    def compare_exactly(self, name: str, got: Tensor, expected: Tensor) -> None:
        """`mismatch.compare_exactly`, remembering that something was compared."""
        self.exact = (self.exact or 0) + 1
        compare_exactly(name, got, expected)

    def gradient(self, name: str, gradients: Mapping[str, Tensor | None]) -> Tensor:
        """One gradient, which must be there."""
        gradient = gradients.get(name)
        if gradient is None:
            raise Mismatch(
                f"{name} got no gradient", where=f"grad_{name}", expected="a tensor", got="None", kind="gradient"
            )
        if gradient.layout != torch.strided:
            raise Mismatch(f"{name} got a gradient of layout {gradient.layout}", where=f"grad_{name}", kind="gradient")
        return gradient


class NotProvided(Exception):
    """The target does not offer what a clause is about; reported as such, never as passed."""


class explained:
    """Turns whatever a target raises into a Mismatch that names the exception and the target's own line."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception) or isinstance(error, Mismatch):
            return
        raise _raised(self.what, error) from error


def _raised(what: str, error: Exception) -> Raised:
    if isinstance(error, RaisedThere):
        kind, said, where, detail = error.kind, error.text, error.where, error.trace
    else:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        kind, said, where = type(error).__name__, str(error), f"{Path(frame.filename).name}:{frame.lineno}"
        detail = "".join(list(_traceback(error).format())[-12:])
    text = said.strip().splitlines()
    return Raised(
        f"{what} raised {kind}: {text[0] if text else ''} ({where})", got=kind, expected="a result", detail=detail
    )


def _traceback(error: BaseException) -> traceback.TracebackException:
    """Its files are named from their package on, so that reports of two machines agree."""
    told: traceback.TracebackException | None = traceback.TracebackException.from_exception(error)
    assert told is not None
    first, roots = told, sorted({os.getcwd(), *map(os.path.abspath, sys.path)}, key=len, reverse=True)
    while told is not None:
        for frame in told.stack:
            root = next((root for root in roots if frame.filename.startswith(root + os.sep)), None)
            frame.filename = os.path.relpath(frame.filename, root) if root else frame.filename
        told = told.__cause__ or told.__context__
    return first


MODES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the deterministic mode": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
}


@contextlib.contextmanager
def _modes_restored() -> Iterator[None]:
    """A call that leaves a mode changed would break the suite after it, or hide that it did."""
    before = {name: read() for name, (read, _) in MODES.items()}
    changed = []
    try:
        yield
    finally:
        for name, (read, restore) in MODES.items():
            if read() != before[name]:
                changed.append(f"{name} from {before[name]} to {read()}")
                restore(before[name])
    if changed:
        raise Mismatch(f"the call changed {', '.join(changed)}", where="global state", kind="modes")


def _same_bytes(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    first, second = (t.detach().clone(memory_format=torch.contiguous_format).flatten() for t in (a, b))
    return torch.equal(first.view(torch.uint8), second.view(torch.uint8))
