"""What every block is held to over many calls: sizes, copies, errors, threads, thousands. Clauses: BLK-22 to BLK-25."""

from __future__ import annotations

import copy
import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance import operations
from detr_conformance.harness.block import calling, expectations, forward, make
from detr_conformance.harness.block_case import call_with
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.packing import packed
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.operations import BLOCKS
from detr_conformance.topics.every_block.cases.images import batches
from detr_conformance.topics.every_block.cases.other_numbers import other_numbers
from detr_conformance.topics.every_block.cases.representative import one

OPERATIONS = BLOCKS
MODELS = ("detr", "deformable_detr", "dino")
LEAKED = 8  # tensors that may be alive after a soak and were not before


def right_after(subject: Subject, made: Any, case: Case, what: str) -> None:
    subject.shapes = case.shapes
    right = expectations(subject, case, backward=False)["output"]
    with torch.no_grad():
        subject.compare(f"output {what}", forward(subject, case, made), right.expected, right.limit)


def separate(subject: Subject) -> bool:
    return "BLK-17" not in operations.OPERATIONS[subject.operation].exempt


@covers("BLK-22", cases=one)
def test_one_module_for_any_call(subject: Subject, case: Case) -> None:
    """The whole batch, an image alone, other numbers, and the whole batch again, without and while training."""
    made = make(subject, case)
    alone = batches(subject, case)[-1:] if separate(subject) else []
    for tried in (case, *alone, other_numbers(subject.operation, case), case):
        right_after(subject, made, tried, "of one module in a row of calls")
    if isinstance(made, nn.Module):
        made.train()
        right_after(subject, made, case, "while training")
        made.eval()
        right_after(subject, made, case, "in evaluation after training")


@covers("BLK-23", cases=one)
def test_copies(subject: Subject, case: Case) -> None:
    """A deep copy, and a state dict read by a new module and by a used one, compute the same and share nothing."""
    made = make(subject, case)
    right_after(subject, made, case, "before it is copied")
    if not isinstance(made, nn.Module):
        return
    copied = copy.deepcopy(made)
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    with torch.no_grad():
        for tensor in (*made.parameters(), *made.buffers()):
            if tensor.is_floating_point():
                tensor.fill_(torch.nan)
    right_after(subject, copied, case, "of a deep copy, after the original was overwritten")
    made.load_state_dict(state)
    right_after(subject, made, case, "after its state dict was loaded again")


@covers("BLK-24", cases=one, once=True)
def test_threads(subject: Subject, case: Case) -> None:
    """Two threads with one module and other numbers."""
    made = make(subject, case)
    tries = (case, other_numbers(subject.operation, case))
    bounds = [calling(subject, made, tried) for tried in tries]
    rights = [expectations(subject, tried, backward=False)["output"] for tried in tries]

    def work(which: int) -> list[Tensor]:
        bound, inputs = bounds[which]
        arguments = bound.arguments(inputs)
        with torch.no_grad():
            return [plain(subject, made, arguments, tries[which]) for _ in range(12)]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, (0, 1)))
    for outputs, right in zip(found, rights, strict=True):
        for output in outputs:
            subject.compare("output in one of two threads", output, right.expected, right.limit)


def plain(subject: Subject, made: Any, arguments: dict[str, Tensor], case: Case) -> Tensor:
    """A call without the guards, which are for one thread and one call at a time."""
    output: Tensor = packed(call_with(subject.operation, made, arguments), case.shapes)
    return output


@covers("BLK-25", cases=one, once=True, costly=True)
def test_many_calls(subject: Subject, case: Case) -> None:
    """Hundreds of calls, thousands of a function, give what the first gave, and leave nothing behind."""
    made = make(subject, case)
    bound, inputs = calling(subject, made, case)
    arguments = bound.arguments(inputs)
    right = expectations(subject, case, backward=False)["output"]
    limit = (2 * right.limit).to(subject.device)
    with torch.no_grad():
        first = plain(subject, made, arguments, case)
        subject.compare("output of the first call", first, right.expected, right.limit)
        wide = first.double()
        before = tensors_alive()
        for number in range(1, soak(subject)):
            output = plain(subject, made, arguments, case)
            same = torch.equal(output, first) or bool(((output.double() - wide).abs() <= limit).all())
            expect(same, f"call {number} gave another output than the first", where="output")
        del output
        left = tensors_alive() - before
    expect(left <= LEAKED, f"{left} more tensors are alive after {soak(subject)} calls", where="memory")


def soak(subject: Subject) -> int:
    if subject.settings.profile == "smoke":
        return 20
    if subject.operation in MODELS:
        return 50
    operation = operations.OPERATIONS[subject.operation]
    assigns = "BLK-15" in operation.exempt  # with scipy, which takes longer than all the rest
    return 1_000 if operation.kind == "module" or assigns else 20_000


def tensors_alive() -> int:
    gc.collect()
    return sum(issubclass(type(each), Tensor) for each in gc.get_objects())
