"""What every block that drops is held to: fresh masks, whoever asks and however often. Clause: BLK-33."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance import operations
from detr_conformance.harness.block import forward, in_training, make, while_training
from detr_conformance.harness.block_case import inputs_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.every_block.cases.dropping import DROPPING, alike_tokens, with_dropout
from detr_conformance.topics.every_block.cases.images import SHARED, images_of, of_image_alone

OPERATIONS = DROPPING
OF_PIXELS = ("images", "mask")  # what a whole model has of each image


def differ(one: Tensor, other: Tensor, otherwise: str) -> None:
    """By more than equal numbers do that are added up in another order."""
    rounding = 0.01 * one.double().square().mean().sqrt()
    expect(bool(((one - other).abs() > rounding).any()), otherwise, where="output")


def drops_now(subject: Subject) -> list[Case]:
    return with_dropout(subject)[:1]


@covers("BLK-33", cases=drops_now, once=True)
def test_every_call_drops_anew(subject: Subject, case: Case) -> None:
    """With gradients and without: a checkpoint's first pass, a teacher in training mode, Monte Carlo dropout."""
    module = in_training(make(subject, case))
    for context in (torch.enable_grad, torch.no_grad):
        with context():
            one, other = (forward(subject, case, module).detach().clone() for _ in range(2))
        differ(one, other, f"under {context.__name__} two training calls drop the same, or nothing")


@covers("BLK-33", cases=drops_now, once=True)
def test_two_modules_drop_differently(subject: Subject, case: Case) -> None:
    """The layers of a stack and the ranks of a training, whose global generators have seeds of their own."""
    found = []
    for seed in (1, 2):
        state = torch.random.get_rng_state()
        torch.manual_seed(seed)
        try:
            found.append(forward(subject, case, in_training(make(subject, case))).detach().clone())
        finally:
            torch.random.set_rng_state(state)
    differ(found[0], found[1], "two new modules drop the same, whatever the seed")


@covers("BLK-33", cases=drops_now, once=True)
def test_images_drop_differently(subject: Subject, case: Case) -> None:
    """One image twice in a batch."""
    size = images_of(subject, case)
    whole = operations.OPERATIONS[subject.operation].image_axis == 1 and "images" in case.tensors
    own = {
        name: tensor[:1].expand_as(tensor).contiguous()
        for name, tensor in inputs_of(subject.operation, case).items()
        if name not in SHARED and len(tensor) == size and (name in OF_PIXELS or not whole)
    }
    output = forward(subject, case.having(**own), in_training(make(subject, case))).detach().cpu()
    one, other = (of_image_alone(subject, case, output, image) for image in range(2))
    differ(one, other, "two images of a batch drop the same, or nothing")


@covers("BLK-33", cases=alike_tokens, once=True)
def test_tokens_drop_differently(subject: Subject, case: Case) -> None:
    """Thousands of tokens with the same numbers: where zeros of two results are in the same places a mask was used
    twice."""
    tokens: Tensor = while_training(subject, case).flatten(0, -2)
    repeated = len(tokens) - len((tokens == 0).unique(dim=0))
    expect(not repeated, f"{repeated} of {len(tokens)} tokens drop what another one drops", where="output")
