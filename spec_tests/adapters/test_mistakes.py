"""What is said to who forgets an adapter, or that a function is forward only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from detr_conformance import Target, from_numpy
from detr_conformance.harness.drive import Failure
from detr_conformance.harness.subject import Subject
from detr_conformance.reporting.report import build_report
from detr_conformance.reporting.selection import Selection
from detr_conformance.running.handshake import HandshakeError, shake_hands
from detr_conformance.running.trial import trials
from detr_conformance.targets import numpy_core


def returns_an_array(*arguments: Any) -> Any:
    return numpy_core.ms_deform_attn(*(each.detach().numpy() for each in arguments))


def met(kernel: Callable[..., Any]) -> str:
    with pytest.raises(HandshakeError) as raised:
        shake_hands(Subject("ms_deform_attn", kernel))
    return str(raised.value)


def test_an_array_in_place_of_a_tensor_is_met_by_the_adapter_to_use() -> None:
    said = "a ndarray, not a tensor; provide from_numpy(your_function), and from detr_conformance import from_numpy"
    assert met(returns_an_array).endswith(said)


def test_an_array_of_jax_is_met_by_from_jax() -> None:
    numpy = pytest.importorskip("jax.numpy")
    assert "from_jax(your_function)" in met(lambda *arguments: numpy.asarray(returns_an_array(*arguments)))


def test_a_function_of_arrays_without_an_adapter_is_told_of_them() -> None:
    assert met(numpy_core.ms_deform_attn).endswith("by from_numpy, from_jax or from_dlpack of detr_conformance")


def test_a_forward_only_function_that_claims_backward_is_told_how_to_say_so() -> None:
    """A failure of the clauses of gradients, also where they are computed in threads: never one of the suite."""
    target = Target(name="forward", provides={"ms_deform_attn": from_numpy(numpy_core.ms_deform_attn)})
    failures = [failure for _, _, failure in trials(target, {"MSDA-27", "MSDA-62"})]
    found = [failure.mismatch for failure in failures if failure is not None]
    assert len(found) == len(failures) - 1  # of two tests of threads one is about outputs
    kind = next(mismatch.kind for mismatch in found if "backward is claimed" in mismatch.message)
    events = [{"event": "result", "test": "t", "clauses": [], "outcome": "fail", "failure": {"kind": kind}}]
    report = build_report(events, {}, target="forward", selection=Selection())
    assert report["hints"][0].endswith("if it is forward only, say features=()")


def test_a_forward_only_function_that_says_so_is_not_asked() -> None:
    target = Target(name="f", provides={"ms_deform_attn": from_numpy(numpy_core.ms_deform_attn)}, features=())
    assert not any(isinstance(failure, Failure) for _, _, failure in trials(target, {"MSDA-27", "MSDA-1", "MSDA-62"}))
