"""What tests ask of any block and of its cases; calls from two threads, and a great many in a row."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import torch
from torch import Tensor

from detr_conformance import operations
from detr_conformance.harness.block import agrees, differentiable, expectations, forward, gradients_agree
from detr_conformance.harness.case import Case
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.mismatch import expect, plainly
from detr_conformance.harness.subject import Subject
from detr_conformance.isolation.ahead import ahead
from detr_conformance.isolation.client import tensors_alive_elsewhere
from detr_conformance.topics.every_block.cases.representative import representative

MODELS = ("detr", "deformable_detr", "dino")
LEAKED = 8  # tensors that may be alive after many calls and were not before


def is_module(subject: Subject) -> bool:
    return operations.OPERATIONS[subject.operation].kind == "module"


def asks_for_gradients(subject: Subject, case: Case) -> bool:
    """Some blocks take a mask and have no parameter: nothing is differentiable there."""
    return any(differentiable(subject.operation, name, t) for name, t in case.tensors.items() if name != "grad_output")


def plain_output(subject: Subject, case: Case) -> None:
    """The output of an ordinary call is right."""
    agrees(subject, case)


def plain(subject: Subject, case: Case) -> None:
    """Output and gradients of an ordinary call are right."""
    if subject.backward and asks_for_gradients(subject, case):
        gradients_agree(subject, case)
    else:
        agrees(subject, case)


def ordinary(subject: Subject, _: Case) -> None:
    """A small complete call is right, whatever the case is."""
    case = representative(subject)[0]
    subject.shapes = case.shapes
    plain(subject, case)


def right_after(subject: Subject, made: Any, case: Case, what: str) -> None:
    """The output of this module or function, whatever was before."""
    subject.shapes = case.shapes
    right = expectations(subject, case, backward=False)["output"]
    with torch.no_grad():
        subject.compare(f"output {what}", forward(subject, case, made), right.expected, right.limit)


def compare_gradients(
    subject: Subject, gradients: Mapping[str, Tensor | None], right: Mapping[str, Expectation], what: str
) -> None:
    """Those that there are, with those that are right."""
    for name in gradients.keys() & right.keys():
        gradient = subject.gradient(name, gradients)
        subject.compare(f"grad_{name} {what}", gradient, right[name].expected, right[name].limit)


def in_two_threads(two: Sequence[Callable[[], Any]], times: int, differentiated: bool = False) -> list[list[Any]]:
    """What each of the two gives, so many times, while the other runs beside it."""
    both = Barrier(2, timeout=60)  # or one is done before the other begins, in the same thread

    def work(call: Callable[[], Any]) -> list[Any]:
        both.wait()
        if differentiated:
            return [call() for _ in range(times)]
        with torch.no_grad(), ahead(times):  # which hold for its thread alone
            return [call() for _ in range(times)]

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, two))


def same_every_time(
    call: Callable[[], Tensor], check_first: Callable[[Tensor], None], limit: Tensor, calls: int
) -> None:
    """The first output is right, so many calls give it again within the limit, and nothing of them stays behind."""
    with torch.no_grad():
        first = call()
        with plainly():
            check_first(first)
        wide = first.double()
        with nothing_kept(f"{calls} calls"), ahead(calls - 1):
            for number in range(1, calls):
                output = call()
                same = torch.equal(output, first) or bool(((output.double() - wide).abs() <= limit).all())
                expect(same, f"call {number} gave another output than the first", where="output")
            del output


@contextmanager
def nothing_kept(after: str) -> Iterator[None]:
    """What is done within leaves no tensors behind."""
    before = _tensors_alive()
    yield
    left = _tensors_alive() - before
    expect(left <= LEAKED, f"{left} more tensors are alive after {after}", where="memory")


def _tensors_alive() -> int:
    gc.collect()  # first, since what is dropped here lets go of its counterparts in the target's process
    here = sum(issubclass(type(each), Tensor) for each in gc.get_objects())
    return here + tensors_alive_elsewhere()
