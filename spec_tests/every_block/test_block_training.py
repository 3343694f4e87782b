"""What chapter 3 asks of a training is really there: layouts of images, modules to freeze, masks that repeat."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detr_conformance.harness.block import forward, in_training, make
from detr_conformance.harness.case import OF_IMAGES, lay_out
from detr_conformance.harness.mismatch import Mismatch
from detr_conformance.harness.subject import Subject
from detr_conformance.targets.reference import reference
from detr_conformance.topics.every_block import test_blocks_dropout
from detr_conformance.topics.every_block.cases.dropping import DROPPING, MANY_TOKENS, alike_tokens, with_dropout
from detr_conformance.topics.every_block.test_blocks_form import in_any_layout
from detr_conformance.topics.every_block.test_blocks_surroundings import asking, parts_of

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def subject_of(operation: str) -> Subject:
    return Subject(operation, reference(operation), "float32")


def test_every_module_is_frozen_once() -> None:
    names = ["x", "head.0.weight", "head.1.weight", "proj.bias", "scale"]
    assert parts_of(names[1:]) == ["head", "head.0", "head.1", "proj"]
    assert asking(names, {"x"})["of all but head.0"] == ["x", "head.1.weight", "proj.bias", "scale"]


@pytest.mark.parametrize("operation", ["vit", "detr", "deformable_detr", "dino"])
def test_images_lie_in_channels_last(operation: str) -> None:
    assert any(case.layout == OF_IMAGES for case in in_any_layout(subject_of(operation)))
    image = lay_out(torch.rand(2, 3, 4, 5), OF_IMAGES)
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert not image.is_contiguous()


@pytest.mark.parametrize("operation", DROPPING)
def test_something_is_dropped(operation: str) -> None:
    """Training at these probabilities gives another output than evaluation."""
    subject = subject_of(operation)
    case = with_dropout(subject)[0]
    module = make(subject, case)
    evaluated: Tensor = forward(subject, case, module).detach()
    assert not torch.equal(evaluated, forward(subject, case, in_training(module)))


@pytest.mark.parametrize("operation", MANY_TOKENS)
def test_tokens_are_alike_but_for_their_masks(operation: str) -> None:
    subject = subject_of(operation)
    (case,) = alike_tokens(subject)
    tokens = forward(subject, case).flatten(0, -2)
    assert len(tokens) == 2600
    assert torch.allclose(tokens, tokens[:1].expand_as(tokens), atol=1e-5)


def test_dropout_that_is_off_is_noticed() -> None:
    subject = subject_of("feed_forward")
    (case, *_) = with_dropout(subject)
    evaluating = subject.replacing(lambda *given: _Evaluating(reference("feed_forward")(*given)))
    with pytest.raises(Mismatch):
        test_blocks_dropout.test_images_drop_differently.suite_test.property(evaluating, case)  # type: ignore[attr-defined]


class _Evaluating(torch.nn.Module):
    """Never trains."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module.eval()

    def train(self, mode: bool = True) -> _Evaluating:
        return self

    def forward(self, **named: Tensor) -> Tensor:
        found: Tensor = self.module(**named)
        return found
