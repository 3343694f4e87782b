"""The reference at the sizes that were asked for: its stages and outputs, and how far a right one may be off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from detr_conformance.comparing.selecting import Candidates, selecting
from detr_conformance.harness.block_case import call_with, inputs_of, reference_callable
from detr_conformance.harness.case import Case, mixed_seed
from detr_conformance.harness.random_rounding import PooledRounding
from detr_conformance.isolation.stage_values import StageCalls, stage_calls
from detr_conformance.staging.expectations import Expected, in_dtype, told_of, with_limits

# Of millions of elements four runs find some too steady by chance, see harness/block.py.
ROUNDINGS = (8, 16.0)

Tick = Callable[[str, float], None]  # what runs, and how much of it is done


class Reference:
    """One call of the reference in two precisions, as often as needed.

    Args:
        named: stages and parts that are wanted, by their patterns; the rest is not kept.
        tried: the dtype that a right implementation computes in.
    """

    def __init__(self, operation: str, case: Case, named: set[str], tried: torch.dtype, tick: Tick) -> None:
        self.operation, self.case, self.tried, self.tick = operation, case, tried, tick
        self.paths = {name: path for name, path in told_of(operation).items() if name in named}
        self.modules: dict[torch.dtype, nn.Module] = {}
        self.steps = 0  # module calls in one pass

    def run(self, what: str, dtype: torch.dtype, seen: list[Candidates], indices: Tensor | None = None) -> StageCalls:
        """Stages in the order in which they run, then the outputs."""
        module = self._module(dtype)
        inputs = in_dtype(inputs_of(self.operation, self.case), dtype)
        outputs: dict[str, Tensor] = {}

        def call() -> None:
            outputs.update(named_outputs(call_with(self.operation, module, inputs)))

        with selecting(self.operation, seen, indices), self._ticking(what):
            calls = stage_calls(module, self.paths, call)
        return calls + [(name, numbers_of(output)) for name, output in outputs.items()]

    def expected(self, calls: StageCalls, indices: Tensor | None) -> Expected:
        """The calls with their limits, of random roundings; the selected cells are the same in each."""
        count = iter(range(1, ROUNDINGS[0] + 1))

        def run() -> StageCalls:
            return self.run(f"rounding {next(count)} of {ROUNDINGS[0]}", self.tried, [], indices)

        return with_limits(
            calls, run, ROUNDINGS, self.tried, mixed_seed("compare", self.case.note) >> 8, PooledRounding
        )

    def _module(self, dtype: torch.dtype) -> nn.Module:
        if dtype not in self.modules:
            module = reference_callable(self.operation, self.case, dtype)
            assert isinstance(module, nn.Module)
            self.modules[dtype] = module
        return self.modules[dtype]

    @contextmanager
    def _ticking(self, what: str) -> Iterator[None]:
        done = 0

        def called(*_: Any) -> None:
            nonlocal done
            done += 1
            self.tick(what, done / max(self.steps, done))

        hook = register_module_forward_hook(called)
        try:
            yield
        finally:
            hook.remove()
        self.steps = done


def named_outputs(output: Any) -> dict[str, Tensor]:
    """The floating outputs by name; a single one is "output"."""
    named: Mapping[str, Any] = output if isinstance(output, Mapping) else {"output": output}
    return {name: each for name, each in named.items() if isinstance(each, Tensor) and each.is_floating_point()}


def numbers_of(output: Tensor) -> Tensor:
    return output.detach().to("cpu", torch.float64).flatten()
