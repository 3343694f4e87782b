"""A vector: one call that can be repeated by itself, and what its results must be."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from detr_conformance.vectors.provenance import Judged
from detr_conformance.vectors.tape import Call, Given

GRADIENT, STAGE = "grad_", "stage:"
LARGEST_LIMIT = torch.finfo(torch.float64).max


@dataclass
class Check:
    """What one result must be.

    Attributes:
        of: the result: "output", the name of one of several, or "grad_<name>".
        expected: float64, of the result's shape.
        limit: float64, infinite where nothing is asked; None where the result is exactly `expected`, rounded.
        tests: that ask it.
    """

    of: str
    expected: Tensor
    limit: Tensor | None
    tests: list[str]

    @property
    def share(self) -> float:
        """Of the elements, how many are judged."""
        if self.limit is None or not self.limit.numel():
            return 1.0
        return round(float(self.limit.isfinite().double().mean()), 6)


@dataclass
class Vector:
    """See `docs/guides/vectors.md`, which says what each field is for."""

    operation: str
    dtype: str
    call: Call
    notes: list[str] = field(default_factory=list)
    checks: dict[str, Check] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """The same for the same call, whoever asks for it."""
        return f"{self.operation}-{self.dtype}-{self._digest[:16]}"

    @property
    def _digest(self) -> str:
        about = [self.operation, self.dtype, self.call.training, self.settings, self.gradients]
        digest = hashlib.sha256(json.dumps(about).encode())
        named = {"incoming": self.call.incoming, **self.call.inputs}
        for name, given in sorted(named.items()):
            if given is not None:
                digest.update(f"{name} {given.strides} {given.offset} {fingerprint(given.numbers)}".encode())
        for name, tensor in sorted(self.parameters.items()):
            digest.update(f"parameter {name} {fingerprint(tensor)}".encode())
        return digest.hexdigest()

    @property
    def settings(self) -> dict[str, Any]:
        """A module's configuration, or keyword settings of a function, as JSON holds them."""
        if self.call.made is None:
            given = self.call.settings
        else:
            config = self.call.made.config
            given = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
        plain = {n: str(v).removeprefix("torch.") if isinstance(v, torch.dtype) else v for n, v in given.items()}
        return dict(json.loads(json.dumps(plain)))

    @property
    def parameters(self) -> dict[str, Tensor]:
        return {} if self.call.made is None else self.call.made.parameters or {}

    @property
    def incoming(self) -> dict[str, Given]:
        """The gradient of each output, where a backward pass belongs to the call."""
        given = self.call.incoming
        if given is None:
            return {}
        if self.call.outputs == ("output",):
            return {"output": given}
        found, start = {}, 0
        for name in self.call.outputs:
            result = self.call.results[name]
            if result.is_floating_point():
                part = given.numbers.flatten()[start : start + result.numel()].view(result.shape)
                found[name] = Given(part, part.stride(), 0)
                start += result.numel()
        return found

    @property
    def gradients(self) -> list[str]:
        """The inputs and parameters of which a gradient is asked."""
        return sorted(n.removeprefix(GRADIENT) for n in self.call.results if self._is_gradient(n))

    def _is_gradient(self, name: str) -> bool:
        return name not in self.call.outputs and not name.startswith(STAGE)

    @property
    def flags(self) -> list[str]:
        inputs = [given.numbers for given in self.call.inputs.values()]
        floating = [t for t in (*inputs, *self.parameters.values()) if t.is_floating_point()]
        placed = [*self.call.inputs.values(), *([self.call.incoming] if self.call.incoming else [])]
        said = {
            "backward": self.call.incoming is not None,
            "empty": any(tensor.numel() == 0 for tensor in inputs),
            "exact": any(check.limit is None for check in self.checks.values()),
            "nonfinite": any(not bool(tensor.isfinite().all()) for tensor in floating),
            "stages": any(check.of.startswith(STAGE) for check in self.checks.values()),
            "strided": any(not given.plain for given in placed),
            "training": self.call.training,
        }
        return [flag for flag, holds in said.items() if holds]

    @property
    def results(self) -> list[str]:
        """What is asked about, the outputs in their order and then the gradients."""
        asked = {check.of for check in self.checks.values()}
        return [name for name in self.call.results if name in asked]

    def absorb(self, other: Vector) -> None:
        """Takes over what another test asks of the same call."""
        self.call.results |= {n: t for n, t in other.call.results.items() if n not in self.call.results}
        self.notes += [note for note in other.notes if note not in self.notes]
        for key, check in other.checks.items():
            known = self.checks.setdefault(key, check)
            known.tests += [test for test in check.tests if test not in known.tests]

    def ask(self, parts: Iterable[Judged], test: str) -> None:
        """Adds what a test asks of the results."""
        for part in parts:
            result = self.call.results[part.place[1]]
            expected = torch.zeros(result.numel(), dtype=torch.float64)
            limit = torch.full_like(expected, torch.inf)
            rounded = part.expected.to(result.dtype).double()  # infinite where the dtype has no such number
            near = torch.where(rounded.isfinite(), part.expected, rounded)
            expected[part.elements] = rounded if part.limit is None else near
            limit[part.elements] = 0.0 if part.limit is None else part.limit.clamp(max=LARGEST_LIMIT)
            whole = part.limit is None and len(part.elements) == result.numel()
            check = Check(
                part.place[1], expected.view(result.shape), None if whole else limit.view(result.shape), [test]
            )
            key = f"{check.of} {fingerprint(check.expected)} {None if whole else fingerprint(limit)}"
            known = self.checks.setdefault(key, check)
            if test not in known.tests:
                known.tests.append(test)


def fingerprint(tensor: Tensor) -> str:
    """sha256 of dtype, shape and bytes."""
    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{str(plain.dtype).removeprefix('torch.')} {list(plain.shape)} ".encode())
    digest.update(bytes_of(plain))
    return digest.hexdigest()


def bytes_of(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous()
    return bytes(plain.view(-1).view(torch.uint8).numpy().tobytes()) if plain.numel() else b""
