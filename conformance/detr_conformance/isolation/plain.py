"""A runner that holds nothing: each message carries all that its run needs, that of a backward pass its call again."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr_conformance.isolation import two_ranks_group
from detr_conformance.isolation.client import RaisedThere
from detr_conformance.isolation.process import Died, NotDone, Process
from detr_conformance.isolation.values import decode
from detr_conformance.isolation.wire import (
    Described,
    WireError,
    as_bytes,
    layout_of,
    plain_bytes,
    read_storages,
    view_of,
    write_storages,
)

LARGEST_RESULT = 1 << 32  # bytes of one tensor, if every element had some of its own
WRONG = (WireError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError, RecursionError)
TRY_IT = "`detr-spec runner-test` holds each of its answers against the schema of the protocol"
Step = dict[str, Any]


@dataclass(frozen=True)
class Given:
    """A tensor of a message, and how autograd knows it here."""

    tensor: Tensor
    requires_grad: bool
    leaf: bool

    @staticmethod
    def of(tensor: Tensor) -> Given:
        return Given(tensor, tensor.requires_grad, tensor.is_leaf)


@dataclass(frozen=True)
class Answer:
    """What the last step came to: JSON in which tensors are names; the tensors, and those that hang in no graph."""

    coded: Any
    tensors: dict[str, Tensor]
    constant: frozenset[str]

    def decoded(self, replaced: Mapping[str, Tensor] | None = None) -> Any:
        return decode(self.coded, lambda name: {**self.tensors, **(replaced or {})}[name])

    def names(self) -> list[str]:
        """Of the tensors in the order in which the result lists them, each once."""
        return list(dict.fromkeys(tensors_in(self.coded)))


class Plain:
    """The judge's end of the wire to one runner, which does one message after another."""

    def __init__(self, process: Process) -> None:
        self.process = process
        weakref.finalize(self, process.stop)  # at the end of this process at the latest

    def __deepcopy__(self, memo: Any) -> Plain:
        return self

    def run(self, steps: Sequence[Step], given: Mapping[str, Given], seed: int, times: int = 1) -> Answer:
        """Has the steps done, and returns what the last one came to.

        Raises:
            RaisedThere: the runner raised.
            NotDone: it refused.
            Died: it ended, or its answer is none.
        """
        if threading.current_thread() is not threading.main_thread():
            raise NotDone("a runner that holds nothing does one message after another")
        if two_ranks_group.to_hand_over() is not None:
            raise NotDone("a runner that holds nothing knows of no other process")
        if not self.process.running:
            self.process.start()
        folder, number = Path(self.process.folder.name), next(self.process.numbers)
        with torch.no_grad():
            storages, tensors = packed(given)
            write_storages(folder / f"{number}.in", {name: plain_bytes(each) for name, each in storages.items()})
            message = {
                "message": "run",
                "id": number,
                "folder": str(folder),
                "seed": seed,
                "storages": {name: each.nbytes() for name, each in storages.items()},
                "tensors": tensors,
                "steps": steps,
            }
            reply = self.process.ask(message, times)
            try:
                return self._taken_over(folder, number, reply, storages, tensors, len(steps))
            except WRONG as error:
                self.process.end()
                raise Died(f"the runner's answer is none: {told(error)}", "no answer", TRY_IT) from error
            finally:
                for name in (f"{number}.in", f"{number}.out"):
                    (folder / name).unlink(missing_ok=True)

    def _taken_over(
        self,
        folder: Path,
        number: int,
        reply: Mapping[str, Any],
        storages: Mapping[str, torch.UntypedStorage],
        sent: Sequence[Described],
        steps: int,
    ) -> Answer:
        kind = reply.get("message")
        if kind == "refused":
            raise NotDone(f"the runner refuses: {str(reply.get('reason'))[:500]}")
        if kind not in ("done", "raised"):
            raise WireError(f"its message is {str(kind)[:100]!r}, not done, refused or raised")
        found = read_storages(folder / f"{number}.out", dict(reply.get("storages") or {}))
        for name, content in found.items():
            if name in storages:
                if storages[name].nbytes() != content.numel():
                    raise WireError(f"the storage {name} has {storages[name].nbytes()} bytes, not {content.numel()}")
                as_bytes(storages[name]).copy_(content)
        if kind == "raised":
            said = {"kind": reply.get("kind", "Error"), "text": str(reply.get("text", ""))[:4000]}
            raise RaisedThere({**said, "where": "the runner", "trace": "", "ambient": {}})
        there = {name: content.untyped_storage() for name, content in found.items()} | dict(storages)
        described = {each["id"]: each for each in [*sent, *reply["tensors"]]}
        if not isinstance(reply["results"], list) or len(reply["results"]) != steps:
            raise WireError(f"{steps} steps have as many results")
        coded = reply["results"][-1]
        made = {name: _view(there, described[name]) for name in dict.fromkeys(tensors_in(coded))}
        constant = [name for name in made if described[name].get("requires_grad") is False]
        answer = Answer(coded, made, frozenset(constant))
        answer.decoded()
        return answer


def packed(given: Mapping[str, Given]) -> tuple[dict[str, torch.UntypedStorage], list[Described]]:
    """The storages that the tensors lie on, and the tensors as views of them."""
    storages: dict[str, torch.UntypedStorage] = {}
    names: dict[int, str] = {}
    described = []
    for name, each in given.items():
        storage = each.tensor.untyped_storage()
        if storage._cdata not in names:
            names[storage._cdata] = f"s{len(names)}"
            storages[names[storage._cdata]] = storage
        layout = layout_of(each.tensor, name, names[storage._cdata])
        described.append(layout | {"requires_grad": each.requires_grad, "leaf": each.leaf})
    return storages, described


def _view(storages: Mapping[str, torch.UntypedStorage], described: Described) -> Tensor:
    storage, shape = storages[described["storage"]], described["shape"]
    numbers = [described["offset"], *shape, *described["stride"]]
    if not all(type(each) is int and each < 1 << 62 for each in numbers):
        raise WireError("shape, stride and offset are whole numbers")
    if 8 * math.prod(shape) > max(LARGEST_RESULT, storage.nbytes()):
        raise WireError(f"a result of shape {shape} is too large")
    return view_of(storage, described)


def tensors_in(coded: Any) -> Iterator[str]:
    """The names of the tensors in a coded value."""
    if isinstance(coded, dict):
        for kind, content in coded.items():
            if kind == "tensor":
                yield content
            elif kind == "dict":
                for _, each in content:
                    yield from tensors_in(each)
            elif kind in ("list", "tuple"):
                for each in content:
                    yield from tensors_in(each)


def told(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)[:300] or type(error).__name__
