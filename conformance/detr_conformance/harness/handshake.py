"""The handshake: one fixed, ordinary call of each operation before anything is judged."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from detr_conformance.harness.mismatch import Mismatch, Raised
from detr_conformance.harness.msda_cases import Structure, case_at, everywhere
from detr_conformance.harness.subject import Subject
from detr_conformance.operations import OPERATIONS


class HandshakeError(Exception):
    """The target cannot be called as the operation's signature says."""


def shake_hands(subject: Subject) -> None:
    """Checks the signature and makes one ordinary call.

    Raises:
        HandshakeError: the signature does not fit, or the call raises.
    """
    _check_signature(subject)
    try:
        CALLS[subject.operation](subject)
    except Raised as raised:
        raise HandshakeError(f"an ordinary {subject.dtype} call failed: {raised.message}") from raised
    except Mismatch:
        return  # a wrong result is for the clauses to judge


def _check_signature(subject: Subject) -> None:
    arguments = OPERATIONS[subject.operation].arguments
    try:
        signature = inspect.signature(subject.implementation)
    except (TypeError, ValueError):  # builtins and compiled operators have none to show
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise HandshakeError(f"wrong signature {signature}: it must take ({', '.join(arguments)}); {error}") from error


def _call_function(subject: Subject) -> Any:
    return subject.forward(case_at(subject, Structure(), everywhere, note="handshake"))


def _call_module(subject: Subject) -> Any:
    from detr_conformance.harness.module_cases import handshake_case
    from detr_conformance.harness.module_subject import forward

    return forward(subject, handshake_case(subject))


CALLS: dict[str, Callable[[Subject], Any]] = {
    "ms_deform_attn": _call_function,
    "ms_deform_attn_module": _call_module,
}
