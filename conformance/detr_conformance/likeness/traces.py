"""What an implementation did while a property of the suite was decided on a case: its results, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from detr_conformance.harness.block import by_name
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import Mismatch, Raised
from detr_conformance.harness.subject import Subject
from detr_conformance.isolation.process import Died, NotDone

PASSED = "passed"
MOST_TENSORS, MOST_ELEMENTS = 60, 1 << 22  # of one trace: what comes behind is as wrong, or as right
NUMBERS = re.compile(r"[-+]?\d[\w.+-]*|\b(nan|inf|-inf)\b")


@dataclass
class Trace:
    """Named results in the order in which they came, and how the property ended, in words without numbers."""

    results: list[tuple[str, Tensor]] = field(default_factory=list)
    end: str = ""
    elements: int = 0

    def add(self, name: str, result: object) -> None:
        """Keeps a copy; of what is no tensor its kind."""
        if not isinstance(result, Tensor) or result.layout != torch.strided:
            name, result = f"{name}, a {type(result).__name__}", torch.empty(0)
        self.elements += result.numel()
        if len(self.results) < MOST_TENSORS and self.elements <= MOST_ELEMENTS:
            self.results.append((name, result.detach().cpu().clone()))

    @property
    def outputs(self) -> Trace:
        """The same without gradients, and without what is wrong with these."""
        outputs = [(name, result) for name, result in self.results if not name.startswith("grad_")]
        return Trace(outputs, PASSED if outputs else self.end)


@dataclass
class Traced(Subject):
    """A subject that writes down what its implementation returns, and what it changes of its arguments."""

    trace: Trace = field(default_factory=Trace)

    def call(self, arguments: dict[str, Tensor]) -> Tensor:
        before = {name: tensor.detach().clone() for name, tensor in arguments.items()}
        self.raw = None
        try:
            output = super().call(arguments)
        finally:
            for name, tensor in arguments.items():
                if not torch.equal(_bytes(tensor), _bytes(before[name])):
                    self.trace.add(f"{name} afterwards", tensor)
        several = self.raw if isinstance(self.raw, dict) else {"output": output}
        for name, tensor in sorted(several.items(), key=lambda each: str(each[0])):
            self.trace.add(str(name), tensor)
        return output

    def pull_back(
        self,
        output: Tensor,
        grad_output: Tensor,
        inputs: dict[str, Tensor],
        retain_graph: bool = False,
        create_graph: bool = False,
    ) -> dict[str, Tensor | None]:
        gradients = super().pull_back(output, grad_output, inputs, retain_graph, create_graph)
        for name, gradient in sorted(by_name(gradients).items()):
            # No gradient and zeros are two ways to say the same.
            self.trace.add(
                f"grad_{name}", torch.zeros_like(inputs[name]) if gradient is None and name in inputs else gradient
            )
        return gradients

    def compare(self, name: str, got: Tensor, expected: Tensor, limit: Tensor, interval: Tensor | None = None) -> None:
        self.trace.add(f"compared {name}", got)
        super().compare(name, got, expected, limit, interval)

    def compare_exactly(self, name: str, got: Tensor, expected: Tensor) -> None:
        self.trace.add(f"compared {name}", got)
        super().compare_exactly(name, got, expected)


def traced(subject: Traced, property: Callable[[Subject, Case], None], case: Case) -> Trace:
    """What the subject's implementation did while the property was decided on a case.

    Raises:
        NotDone: the target refuses what is asked, or its process has ended for good.
    """
    subject.trace = Trace()
    try:
        subject.judged(property, case)
        subject.trace.end = PASSED
    except (NotDone, Died):
        raise
    except Raised as raised:
        subject.trace.end = f"{raised.message.partition(' raised ')[0]} raised {raised.got}"
    except Mismatch as mismatch:
        subject.trace.end = without_numbers(mismatch.message)
    except Exception as error:
        subject.trace.end = type(error).__name__
    return subject.trace


def without_numbers(message: str) -> str:
    """The words of a message: two mistakes of the same kind differ in numbers and in the element that shows most."""
    return NUMBERS.sub("#", message)


def _bytes(tensor: Tensor) -> Tensor:
    plain = tensor.detach().clone(memory_format=torch.contiguous_format).flatten()
    return plain.view(torch.uint8)
