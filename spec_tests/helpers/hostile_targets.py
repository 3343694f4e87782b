"""Targets that do to their own process, or try to do to the judge, what no implementation should."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from detr_conformance import Target
from detr_reference import ms_deform_attn

Core = Callable[..., Tensor]


def core(*arguments: Tensor) -> Tensor:
    return ms_deform_attn(*arguments)


def wrong(*arguments: Tensor) -> Tensor:
    return 1.01 * ms_deform_attn(*arguments)


def without_queries(happens: Callable[[], Any]) -> Core:
    """Right, but for what happens in a call without queries."""

    def kernel(*arguments: Tensor) -> Tensor:
        if arguments[3].shape[1] == 0:
            happens()
        return core(*arguments)

    return kernel


def target(kernel: Core, name: str = "hostile") -> Target:
    return Target(name, provides={"ms_deform_attn": kernel})


# -- what befalls its own process -----------------------------------------------------------------------------


def eat() -> None:
    eaten = []
    while True:
        eaten.append(torch.empty(1 << 25))


def hang() -> None:
    while True:
        time.sleep(0.01)


def garble() -> None:
    """Looks for the pipe that the answers go through, and writes into it."""
    print("nothing of this is read by anybody")
    for descriptor in range(3, 64):
        try:
            if "pipe" in os.readlink(f"/proc/self/fd/{descriptor}"):
                os.write(descriptor, b"verdict: pass\n")
        except OSError:
            continue


crashing = target(without_queries(lambda: ctypes.string_at(0)))
exiting = target(without_queries(lambda: sys.exit(0)))
leaving = target(without_queries(lambda: os._exit(0)))
hanging = target(without_queries(hang))
eating = target(without_queries(eat))
garbling = target(without_queries(garble))


def chatty(*arguments: Tensor) -> Tensor:
    print("a word for standard output", flush=True)
    os.write(1, b"and another one\n")
    return core(*arguments)


chattering = target(chatty)


# -- what it tries to do to the judge -------------------------------------------------------------------------


def _nothing(*_: Any, **__: Any) -> float:
    return 0.0


def patches(*arguments: Tensor) -> Tensor:
    """Has the suite accept whatever it is given, as far as it can be found from here."""
    for name, attributes in {
        "detr_conformance.harness.mismatch": ("compare", "compare_exactly", "check_form", "expect"),
        "detr_conformance.harness.subject": ("compare", "compare_exactly", "check_form"),
        "detr_conformance.harness.suite_test": ("decide", "run_cases"),
    }.items():
        module = importlib.import_module(name)
        for attribute in attributes:
            setattr(module, attribute, _nothing)
    torch.equal = lambda *_: True  # type: ignore[assignment]
    return wrong(*arguments)


class Agreeable(Tensor):
    """Whatever is subtracted from it, or compared with it, is all right."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_function__(function, types, args, kwargs or {})
        if function in (Tensor.sub, torch.sub, Tensor.__rsub__, torch.maximum):
            return torch.zeros_like(found)
        return found


def lies(*arguments: Tensor) -> Tensor:
    return wrong(*arguments).as_subclass(Agreeable)


def watched() -> bool:
    """Whether anything here looks like a test."""
    judged = ("pytest", "_pytest", "hypothesis", "detr_conformance.harness", "detr_conformance.topics")
    loaded = any(name in sys.modules for name in judged)
    told = any("PYTEST" in name for name in os.environ)
    called = any("detr_conformance" in frame.filename for frame in traceback.extract_stack())
    return loaded or told or called or any("detr_conformance.running" in name for name in sys.modules)


def right_when_watched(*arguments: Tensor) -> Tensor:
    return core(*arguments) if watched() else wrong(*arguments)


def reads_the_answer(*arguments: Tensor) -> Tensor:
    """Takes what the reference has computed from the frames and modules of the judge, if they are here."""
    known = sys.modules.get("detr_conformance.topics.deformable_attention.checks.oracle")
    return core(*arguments) if known else wrong(*arguments)


def disturbs(*arguments: Tensor) -> Tensor:
    """Leaves the judge in float64 with one thread and no gradients, if modes are taken over."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return wrong(*arguments)


patching = target(patches)
lying = target(lies)
pretending = target(right_when_watched)
reading = target(reads_the_answer)
disturbing = target(disturbs)
