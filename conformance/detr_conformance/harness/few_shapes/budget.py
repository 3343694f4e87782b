"""The forms of the calls of a run, counted; and under few shapes the cases left out because they would add to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from detr_conformance.harness.case import PARAMETER, Case, mixed_seed

FORMS = 40  # of an operation in a dtype; beyond, a test's first case may bring some all the same
FORMS_OF_A_CASE = 4


class LeftOut(BaseException):
    """A call whose form would be one too many. Not an Exception: it is nothing that the target did."""


class NotTried(Exception):
    """Every case of a test takes forms of calls that would be too many."""


@dataclass
class Forms:
    """Forms of an operation's calls in a dtype: shapes and dtypes of the tensors, sizes of the levels, settings.

    Attributes:
        known: of the run.
        new: of the test in hand, those that it brought.
        left_out: how many of its cases.
    """

    limit: int = FORMS
    known: set[int] = field(default_factory=set)
    new: list[int] = field(default_factory=list)
    left_out: int = 0
    _cases: int = 0
    _before: int = 0  # how many forms were known when the case in hand began

    def begin(self) -> None:
        """Another test."""
        self.new, self.left_out, self._cases = [], 0, 0

    def begin_case(self, case: Case) -> None:
        """Another case of the test.

        Raises:
            LeftOut: its call, as it stands, is one too many.
        """
        self._cases, self._before = self._cases + 1, len(self.known)
        arguments = {n: t for n, t in case.tensors.items() if n != "grad_output" and not n.startswith(PARAMETER)}
        if not self._admissible(form_of(arguments, case.options)):
            raise LeftOut

    def admit(self, arguments: Mapping[str, Tensor], options: Mapping[str, str]) -> None:
        """Count a call.

        Raises:
            LeftOut: its form is new, and there may be no more.
        """
        form = form_of(arguments, options)
        if not self._admissible(form):
            raise LeftOut
        if form not in self.known:
            self.known.add(form)
            self.new.append(form)

    def _admissible(self, form: int) -> bool:
        room = self._cases == 1 or len(self.known) < self.limit
        return form in self.known or (room and len(self.known) < self._before + FORMS_OF_A_CASE)


def form_of(arguments: Mapping[str, Tensor], options: Mapping[str, str]) -> int:
    """A number for what a compiler sees of a call."""
    tensors = [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in arguments.items()]
    levels = arguments["spatial_shapes"].tolist() if "spatial_shapes" in arguments else []
    return mixed_seed(tensors, levels, sorted(options.items()))
