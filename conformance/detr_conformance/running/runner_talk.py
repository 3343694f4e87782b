"""A runner that is tested by the protocol itself: its messages are kept, its answers held against the schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import torch
from jsonschema import Draft202012Validator
from torch import Tensor

from detr_conformance.harness.block import make
from detr_conformance.harness.block_case import call_with, inputs_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.isolation.process import Limits, Process
from detr_conformance.topics.deformable_attention.cases.core import Structure, case_at, inside
from detr_conformance.topics.every_block.cases.representative import REPRESENTATIVE, representative

Message = dict[str, Any]
Alter = Callable[[Message], Message]


class Broken(Exception):
    """What the runner does is not what the protocol says."""


@cache
def validator() -> Draft202012Validator:
    text = (files("detr_conformance") / "isolation" / "protocol.schema.json").read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text))


def problem_of(message: Message) -> str | None:
    """What the schema has against a message: of the kind that it says it is."""
    kind = message.get("message")
    schema = validator().schema
    assert isinstance(schema, dict)
    definitions = schema["$defs"]
    if kind not in ("hello", "run", "done", "refused", "raised", "stop"):
        return f"message is {kind!r}"
    own = Draft202012Validator({**definitions[kind], "$defs": definitions})
    error = next(iter(sorted(own.iter_errors(message), key=lambda error: len(error.absolute_path))), None)
    if error is None:
        return None
    return f"{'.'.join(map(str, error.absolute_path)) or kind}: {error.message[:300]}"


class Observed(Process):
    """Keeps the last message and its answer."""

    def __init__(self, command: Sequence[str], limits: Limits) -> None:
        super().__init__(command, limits)
        self.sent: Message | None = None
        self.got: Message | None = None
        self.alter: Alter = dict

    def start(self) -> Message:
        self.sent, self.got = None, None
        self.got = super().start()
        return self.got

    def ask(self, message: Mapping[str, Any], times: int = 1) -> Message:
        self.sent, self.got = self.alter(dict(message)), None
        self.got = super().ask(self.sent, times)
        if (problem := problem_of(self.got)) is not None:
            raise Broken(f"the answer is not as the schema has it: {problem}")
        if self.got["message"] not in ("done", "refused", "raised"):
            raise Broken(f"the answer is a message {self.got['message']!r}")
        return self.got

    @contextmanager
    def altering(self, alter: Alter) -> Iterator[None]:
        """Messages go out as this makes them."""
        self.alter = alter
        try:
            yield
        finally:
            self.alter = dict


@dataclass(frozen=True)
class Talk:
    """A runner, and an ordinary call of one of its operations."""

    process: Observed
    subject: Subject
    case: Case

    @staticmethod
    def about(process: Observed, subject: Subject) -> Talk:
        if subject.operation in REPRESENTATIVE:
            return Talk(process, subject, representative(subject)[0])
        return Talk(process, subject, case_at(subject, Structure(), inside, note="ordinary"))

    def inputs(self) -> dict[str, Tensor]:
        if self.subject.operation in REPRESENTATIVE:
            return {name: each.clone() for name, each in inputs_of(self.subject.operation, self.case).items()}
        return {name: each.clone() for name, each in self.case.tensors.items() if name != "grad_output"}

    def made(self) -> Callable[..., Any]:
        """The module of the call, or its function with its settings."""
        known = self.subject.operation in REPRESENTATIVE
        made: Callable[..., Any] = make(self.subject, self.case) if known else self.subject.implementation
        return made

    def call(
        self, inputs: Mapping[str, Tensor], gradients: bool = False, made: Callable[..., Any] | None = None
    ) -> list[Tensor]:
        """All tensors of the result, in their order."""
        with torch.set_grad_enabled(gradients):
            return tensors_in(call_with(self.subject.operation, made or self.made(), inputs))


def tensors_in(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    values = result.values() if isinstance(result, Mapping) else result if isinstance(result, list | tuple) else ()
    return [tensor for each in values for tensor in tensors_in(each)]
