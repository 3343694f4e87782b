"""The surroundings in which chapter 3 asks blocks are really there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from detr_conformance.harness.block import expectations, make
from detr_conformance.harness.block_case import call_with, inputs_of
from detr_conformance.harness.subject import Subject
from detr_conformance.operations import BLOCKS, OPERATIONS
from detr_conformance.targets.reference import reference
from detr_conformance.topics.every_block.cases.representative import one
from detr_conformance.topics.every_block.test_blocks_surroundings import SURROUNDINGS, asking, raise_in

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

MODULES = [operation for operation in BLOCKS if OPERATIONS[operation].kind == "module"]
LIGHT = [operation for operation in MODULES if operation not in ("detr", "deformable_detr", "dino")]


def test_each_argument_and_parameter_is_frozen_once_and_asked_once() -> None:
    names, given = ["bias", "query", "value", "weight"], {"query", "value"}
    asked = list(asking(names, given).values())
    for name in names:
        assert any(name in each for each in asked)
        assert any(name not in each for each in asked)
    assert list(asking(["weight"], set()).values()) == [["weight"], ["weight"]]


@pytest.mark.parametrize("operation", LIGHT)
def test_there_is_something_to_freeze(operation: str) -> None:
    subject = Subject(operation, reference(operation), "float32")
    (case,) = one(subject)
    names = [n for n, each in expectations(subject, case).items() if n != "output" and bool((each.expected != 0).any())]
    if names:
        assert len(asking(sorted(names), set(inputs_of(operation, case)))) >= 2 or len(names) == 1


@pytest.mark.parametrize("operation", LIGHT)
def test_the_call_that_has_to_raise_raises(operation: str) -> None:
    """Of a module that takes floating arguments of more than one axis."""
    subject = Subject(operation, reference(operation), "float32")
    (case,) = one(subject)
    given = [t for t in inputs_of(operation, case).values() if t.is_floating_point()]
    if not given:
        return
    made, raised = make(subject, case), []

    def noticing(**inputs: Any) -> Any:
        try:
            return call_with(operation, made, inputs)
        except Exception as error:
            raised.append(error)
            raise

    raise_in(subject, noticing, case)
    assert raised


def test_modes_are_on_inside_and_off_afterwards() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    with SURROUNDINGS["with deterministic algorithms"]():
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.are_deterministic_algorithms_enabled() == before
    x = torch.ones(3, requires_grad=True)
    with SURROUNDINGS["with hooks for saved tensors"]():
        y = x.exp()
    assert y.grad_fn._saved_result.data_ptr() != y.data_ptr()


def test_most_operations_have_an_argument_to_expand() -> None:
    found = set()
    for operation in BLOCKS:
        subject = Subject(operation, reference(operation), "float32")
        given = inputs_of(operation, one(subject)[0])
        if any(t.is_floating_point() and t.ndim > 1 and t.shape[0] > 1 for t in given.values()):
            found.add(operation)
    assert {"multihead_attention", "decoder_layer", "dino_decoder", "vit", "detr", "refine_boxes"} <= found
    assert {"sigmoid_focal_loss", "generalized_box_iou"} <= found
