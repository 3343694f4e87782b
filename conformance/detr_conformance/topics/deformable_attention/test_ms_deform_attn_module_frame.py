"""The deformable attention module: positions, identity, dropout, numbers. Clauses: MSDM-12 to MSDM-19."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from detr_conformance.harness.block import (
    agrees,
    expectations,
    forward,
    fresh,
    gradients_agree,
    in_training,
    make,
    parameters_if_named,
    seeded,
)
from detr_conformance.harness.block_case import config_of
from detr_conformance.harness.case import LAYOUTS, Case
from detr_conformance.harness.mismatch import expect, expect_share
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.deformable_attention.cases.module import (
    OBLONG,
    ModuleStructure,
    drawn_modules,
    module_case,
    self_attending,
)

OPERATION = "ms_deform_attn_module"


# -- the frame ----------------------------------------------------------------------------------------------


def large_positions(subject: Subject) -> Iterator[Case]:
    case = module_case(subject, OBLONG, note="large positions")
    yield case.having(query_pos=case["query_pos"] * 3)


@covers("MSDM-12", cases=large_positions)
def test_positions_belong_to_the_query(subject: Subject, case: Case) -> None:
    agrees(subject, case)
    agrees(subject, self_attending(subject))


def with_defaults(subject: Subject) -> Iterator[Case]:
    yield self_attending(subject)
    as_many = ModuleStructure(levels=((4, 6), (2, 3)), queries=30)
    yield module_case(subject, as_many, note="as many queries as cells, no identity").having(identity=None)
    yield module_case(subject, as_many, note="as many queries as cells")
    yield module_case(subject, OBLONG, note="no identity").having(identity=None)
    yield module_case(subject, OBLONG, note="no positions").having(query_pos=None)


@covers("MSDM-13", cases=with_defaults)
def test_defaults(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MSDM-14", cases=lambda subject: [module_case(subject, OBLONG, note="identity")])
def test_identity(subject: Subject, case: Case) -> None:
    agrees(subject, case.having(identity=case["identity"] * 10))


def dropping(subject: Subject) -> Iterator[Case]:
    for probability in (0.1, 0.5):
        s = replace(OBLONG, dropout=probability, queries=60, batch=2, heads=4, channels=8)
        yield module_case(subject, s, note=f"dropout {probability}")


@covers("MSDM-15", cases=dropping)
def test_dropout(subject: Subject, case: Case) -> None:
    agrees(subject, case)
    probability = config_of(OPERATION, case).dropout
    module = in_training(make(subject, case))
    with seeded(subject):
        output = forward(subject, case.having(identity=torch.zeros_like(case["identity"])), module).detach().cpu()
        framed = forward(subject, case, module).detach().cpu()
    right = expectations(subject, case.having(identity=torch.zeros_like(case["identity"])), backward=False)["output"]
    dropped = output == 0
    subject.compare(
        "kept elements while training",
        output[~dropped],
        right.expected[~dropped] / (1 - probability),
        right.limit[~dropped] / (1 - probability) * 1.01
        + 2**-7 * right.expected[~dropped].abs() * (output.element_size() == 2),
    )
    expect_share("dropped elements", dropped, probability)
    deviation = math.sqrt(probability * (1 - probability) / dropped.numel())
    bare = (framed == case["identity"]).double().mean().item()
    expect(
        abs(bare - probability) < 6 * deviation + 0.01,
        f"identity alone was returned for {bare:.3f} of the elements, expected {probability}: identity was dropped too",
        where="output",
    )


@covers("MSDM-16", cases=lambda subject: [module_case(subject, OBLONG, note="affine in the value")])
def test_affine_in_the_value(subject: Subject, case: Case) -> None:
    """The value far from the one the offsets might have looked at: f(v) must still be that of the formula, and
    f((v + w) / 2) the mean of f(v) and f(w)."""
    other = case.having(value=case["value"].flip(1) * -2)
    middle = case.having(value=((case["value"].double() + other["value"].double()) / 2).to(case["value"].dtype))
    right = [expectations(subject, each, backward=False)["output"] for each in (case, other, middle)]
    v, w, half = (forward(subject, each) for each in (case, other, middle))
    mean = (v.detach().cpu().double() + w.detach().cpu().double()) / 2
    slack = right[0].limit + right[1].limit + right[2].limit
    exact = (right[0].expected + right[1].expected) / 2 - right[2].expected  # of rounding the middle value
    subject.compare("output at the middle value", half, mean - exact, slack)


# -- numbers ------------------------------------------------------------------------------------------------


@covers("MSDM-17", cases=lambda subject: drawn_modules(subject))
def test_accuracy(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


@covers(
    "MSDM-17",
    cases=lambda subject: [
        module_case(subject, ModuleStructure(((20, 27), (10, 14), (5, 7), (3, 4)), heads=8, channels=32, points=4))
    ],
)
def test_accuracy_at_scale(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


def smooth_modules(subject: Subject) -> Iterator[Case]:
    """Few samples a query, far from kinks: 2-d and 4-d, masked and not, levels of unlike sizes."""
    for seed, (levels, points, coordinates) in enumerate(
        ((((5, 9), (3, 4)), 1, 2), (((5, 9), (3, 4)), 1, 4), (((50, 6),), 2, 2), (((4, 7), (6, 3)), 1, 4))
    ):
        s = ModuleStructure(levels, queries=4, heads=2, points=points, coordinates=coordinates, masked=seed % 2 == 1)
        yield module_case(subject, s, seed, note="away from kinks", smooth=True).laid_out(LAYOUTS[seed])


@covers("MSDM-18", cases=smooth_modules, feature="backward", plain=agrees)
def test_gradient_accuracy(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, precise=True)


def freshly_initialised(subject: Subject) -> Iterator[Case]:
    for heads in (8, 3, 4):
        yield module_case(subject, replace(OBLONG, heads=heads, channels=8), note=f"{heads} heads, own parameters")
    for points in (1, 9):
        yield module_case(subject, replace(OBLONG, channels=8, points=points), note=f"{points} points, own parameters")


@covers("MSDM-19", cases=freshly_initialised, once=True)
def test_initialisation(subject: Subject, case: Case) -> None:
    config = config_of(OPERATION, case)
    module = fresh(subject, case)
    own = parameters_if_named(subject, module, case)
    if own is None:
        raise NotProvided("its parameters cannot be read by name")
    found = {name: torch.cat(parts).detach().cpu().double() for name, parts in own.items()}
    heads, levels, points = config.num_heads, config.num_levels, config.num_points
    expected = torch.zeros(heads, levels, points, 2, dtype=torch.float64)
    for h in range(heads):
        x, y = math.cos(2 * math.pi * h / heads), math.sin(2 * math.pi * h / heads)
        longest = max(abs(x), abs(y))
        for p in range(points):
            expected[h, :, p] = torch.tensor((x, y), dtype=torch.float64) * (p + 1) / longest
    unit = max(torch.finfo(subject.torch_dtype).eps, 1e-6)
    near = unit * (1 + expected.flatten().abs())
    subject.compare("sampling_offsets.bias", found["sampling_offsets.bias"], expected.flatten(), near)
    for name in ("sampling_offsets.weight", "attention_weights.weight", "attention_weights.bias"):
        subject.compare_exactly(name, found[name], torch.zeros_like(found[name]))
    bound = math.sqrt(6 / (2 * config.embed_dim))
    for name in ("value_proj", "output_proj"):
        subject.compare_exactly(f"{name}.bias", found[f"{name}.bias"], torch.zeros_like(found[f"{name}.bias"]))
        weight = found[f"{name}.weight"]
        largest, spread = weight.abs().max().item(), weight.std().item()
        expect(
            0.8 * bound < largest <= bound * (1 + unit) and 0.85 < spread / (bound / math.sqrt(3)) < 1.15,
            f"{name}.weight is not Xavier uniform: largest {largest:.4f} of {bound:.4f}, deviation {spread:.4f}",
            where=f"{name}.weight",
            expected=f"uniform in +-{bound:.4f}",
            got=f"largest {largest:.4f}, deviation {spread:.4f}",
        )
