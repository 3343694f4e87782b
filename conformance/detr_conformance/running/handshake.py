"""The handshake: one fixed, ordinary call of each operation before anything is judged."""

from __future__ import annotations

import inspect

from detr_conformance.harness.block import forward
from detr_conformance.harness.mismatch import Mismatch, NoTensor, Raised
from detr_conformance.harness.subject import Subject
from detr_conformance.isolation.process import Died, NotDone
from detr_conformance.operations import OPERATIONS
from detr_conformance.topics.deformable_attention.cases.core import Structure, case_at, everywhere
from detr_conformance.topics.every_block.cases.representative import REPRESENTATIVE, representative


class HandshakeError(Exception):
    """The target cannot be called as the operation's signature says."""


def shake_hands(subject: Subject) -> None:
    """Checks the signature and makes one ordinary call.

    Raises:
        HandshakeError: the signature does not fit, or the call raises or returns no tensor.
    """
    _check_signature(subject)
    try:
        _call(subject)
    except Raised as raised:
        raise HandshakeError(
            f"an ordinary {subject.dtype} call failed: {raised.message}{_of_arrays(raised)}"
        ) from raised
    except NoTensor as other:
        raise HandshakeError(f"of an ordinary {subject.dtype} call {other.message}") from other
    except Died as died:
        raise HandshakeError("; ".join(filter(None, (died.message, died.detail)))) from died
    except NotDone as refused:
        raise HandshakeError(f"an ordinary {subject.dtype} call is not done: {refused}") from refused
    except Mismatch:
        return  # a wrong result is for the clauses to judge


def _of_arrays(raised: Raised) -> str:
    """What to do where the exception is another library's about the tensors that it was given."""
    about = "torch." in raised.message or "numpy()" in raised.message
    return "; a function of arrays is provided by from_numpy, from_jax or from_dlpack of detr_conformance" * about


def _check_signature(subject: Subject) -> None:
    operation = OPERATIONS[subject.operation]
    try:
        signature = inspect.signature(subject.implementation)
    except (TypeError, ValueError):  # builtins and compiled operators have none to show
        return
    try:
        signature.bind(*operation.arguments, **dict.fromkeys(operation.settings))
    except TypeError as error:
        wanted = ", ".join(operation.arguments + operation.settings)
        raise HandshakeError(f"wrong signature {signature}: it must take ({wanted}); {error}") from error


def _call(subject: Subject) -> None:
    if subject.operation in REPRESENTATIVE:
        forward(subject, representative(subject)[0])
    else:
        subject.forward(case_at(subject, Structure(), everywhere, note="handshake"))
