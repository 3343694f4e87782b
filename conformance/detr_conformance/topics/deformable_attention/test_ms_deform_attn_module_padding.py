"""The deformable attention module: padding, images, arguments. Clauses: MSDM-7 to MSDM-10, MSDM-20, MSDM-21."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from detr_conformance.harness.block import agrees, expectations, forward
from detr_conformance.harness.block_case import parameters_of, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.deformable_attention.cases.module import OBLONG, module_case, self_attending

OPERATION = "ms_deform_attn_module"


# -- padding ------------------------------------------------------------------------------------------------


def masked(subject: Subject) -> Iterator[Case]:
    for coordinates in (2, 4):
        s = replace(OBLONG, masked=True, batch=3, coordinates=coordinates, queries=8)
        yield module_case(subject, s, note="padding")


def padded(subject: Subject) -> Iterator[Case]:
    if subject.variant("padding") == "none":
        raise NotProvided("the module takes no padding mask")
    yield from masked(subject)


@covers("MSDM-7", cases=padded)
def test_project_then_mask(subject: Subject, case: Case) -> None:
    """A large bias of the projection must not leak in from padding."""
    bias = 5 + parameters_of(case)["value_proj.bias"].abs()
    agrees(subject, with_parameters(case, value_proj__bias=bias))


@covers("MSDM-8", cases=padded)
def test_true_is_padding(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MSDM-8", cases=padded)
def test_all_false_is_no_mask(subject: Subject, case: Case) -> None:
    nothing = case.having(key_padding_mask=torch.zeros_like(case["key_padding_mask"]))
    right = expectations(subject, case.having(key_padding_mask=None), backward=False)["output"]
    subject.compare("output", forward(subject, nothing), right.expected, right.limit)


@covers("MSDM-9", cases=padded)
def test_no_renormalisation(subject: Subject, case: Case) -> None:
    """On a constant map the output shows the sum of the weights that were not lost."""
    constant = case["value"][:, :1].expand_as(case["value"]).contiguous()
    agrees(subject, case.having(value=constant))


@covers("MSDM-10", cases=padded)
def test_padding_may_hold_anything(subject: Subject, case: Case) -> None:
    padding = case["key_padding_mask"][..., None]
    right = expectations(subject, case, backward=False)["output"]
    for poison in (torch.nan, torch.inf):
        poisoned = case.having(value=case["value"].masked_fill(padding, poison))
        subject.compare("output", forward(subject, poisoned), right.expected, right.limit)


# -- images and arguments -----------------------------------------------------------------------------------


@covers("MSDM-20", cases=masked)
def test_images_of_the_module_are_separate(subject: Subject, case: Case) -> None:
    """Each image alone gives what it gives in the batch, whatever its neighbours hold."""
    right = expectations(subject, case, backward=False)["output"]
    whole = forward(subject, case)
    noisy = case["value"].clone()
    noisy[0] = torch.nan
    disturbed = forward(subject, case.having(value=noisy))
    names = ("query", "value", "identity", "query_pos", "reference_points", "key_padding_mask", "grad_output")
    batched = [name for name in names if name in case.tensors]
    for image in range(case["query"].shape[0]):
        alone = forward(subject, case.having(**{name: case[name][image : image + 1] for name in batched}))
        expected, limit = right.expected[image : image + 1], right.limit[image : image + 1]
        subject.compare(f"output of image {image} alone", alone, expected, limit)
        subject.compare(f"output of image {image} in the batch", whole[image : image + 1], expected, limit)
        if image > 0:
            subject.compare(
                f"output of image {image} beside a broken one", disturbed[image : image + 1], expected, limit
            )


@covers("MSDM-21", cases=masked)
def test_arguments_of_the_module_are_left_alone(subject: Subject, case: Case) -> None:
    """`Subject.call` compares the arguments, `block.forward` the parameters."""
    with torch.no_grad():
        forward(subject, case)
    agrees(subject, case)
    agrees(subject, self_attending(subject))
