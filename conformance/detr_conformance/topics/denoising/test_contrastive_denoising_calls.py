"""Contrastive denoising (chapter 13): who sees whom, and how the operation behaves from call to call."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from detr_conformance.harness.block import calling, make, raises, seeded
from detr_conformance.harness.case import LAYOUTS, Case, lay_out
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.denoising.cases import (
    APART,
    denoising_case,
    drawn,
    noisy,
    quiet,
    representative_contrastive_denoising,
)
from detr_conformance.topics.denoising.checks.queries import (
    arranged,
    mask_of,
    output_of,
    queries,
    returned,
    round_off,
    unchanged_labels,
    uncorrelated,
    unmoved,
)

OPERATION = "contrastive_denoising"


# -- who sees whom --------------------------------------------------------------------------------------------


def group_of_each(mask: torch.Tensor, case: Case) -> torch.Tensor:
    """(D + Q,): the group of each query, -1 for the matching ones."""
    matching = int(case.options["num_queries"])
    size = 2 * int(case["target_counts"].max())
    group = torch.arange(len(mask)) // max(size, 1)
    group[len(mask) - matching :] = -1
    return group


@covers("CDN-25", cases=representative_contrastive_denoising)
def test_groups_do_not_see_each_other(subject: Subject, case: Case) -> None:
    mask = mask_of(subject, case)
    group = group_of_each(mask, case)
    others = (group[:, None] != group) & (group[:, None] >= 0) & (group >= 0)
    seen = int((others & ~mask).sum())
    expect(not seen, f"{seen} of {int(others.sum())} pairs of different groups see each other", where="attn_mask")


@covers("CDN-26", cases=representative_contrastive_denoising)
def test_matching_does_not_see_denoising(subject: Subject, case: Case) -> None:
    mask = mask_of(subject, case)
    group = group_of_each(mask, case)
    seen = int((~mask[group < 0][:, group >= 0]).sum())
    expect(not seen, f"matching queries see denoising ones in {seen} pairs", where="attn_mask")


@covers("CDN-27", cases=drawn)
def test_all_else_is_visible(subject: Subject, case: Case) -> None:
    mask = mask_of(subject, case)
    group = group_of_each(mask, case)
    for what, pairs in (
        ("of one group", (group[:, None] == group) & (group >= 0)),
        ("of a denoising and a matching query", (group[:, None] >= 0) & (group < 0)),
        ("of matching queries", (group[:, None] < 0) & (group < 0)),
    ):
        hidden = int((pairs & mask).sum())
        expect(not hidden, f"{hidden} of {int(pairs.sum())} pairs {what} are hidden", where="attn_mask")


# -- calls ----------------------------------------------------------------------------------------------------


@covers("CDN-28", cases=representative_contrastive_denoising)
def test_arguments_are_left_alone(subject: Subject, case: Case) -> None:
    """Each call compares the bytes of its arguments."""
    with seeded(subject):
        returned(subject, case)


@covers("CDN-29", cases=lambda s: [next(quiet(s)).laid_out(layout) for layout in LAYOUTS])
def test_any_strides(subject: Subject, case: Case) -> None:
    seen = queries(subject, case)
    unchanged_labels(subject, seen)
    unmoved(subject, seen)


def sampled(subject: Subject) -> Iterator[Case]:
    yield noisy(subject, note="twice", label_noise_ratio=1.0, box_noise_scale=APART)


@covers("CDN-30", cases=sampled, dtypes=("float64", "float32"))  # moves are too coarse in half
def test_fresh_noise_in_every_call(subject: Subject, case: Case) -> None:
    with seeded(subject):
        one, two = (arranged(subject, case, returned(subject, case)) for _ in range(2))
    true = one.labels[:, None, None]
    uncorrelated("changes of label in two calls", one.noised_labels != true, two.noised_labels != true)
    uncorrelated("signs of moves in two calls", one.moves > 0, two.moves > 0)
    far = [seen.moves.abs() - torch.tensor([0.5, 1.5])[:, None, None] for seen in (one, two)]
    uncorrelated("lengths of moves in two calls", *far)


@covers("CDN-31", cases=representative_contrastive_denoising)
def test_reproducible(subject: Subject, case: Case) -> None:
    results = []
    for _ in range(2):
        with seeded(subject):
            results.append(returned(subject, case))
    for name in ("content", "references"):
        subject.compare_exactly(f"{name} with the same seed", results[1][name].detach(), results[0][name].detach())
    for mode in (torch.no_grad, torch.inference_mode):
        with seeded(subject), mode():
            quietly = returned(subject, case)
        for name in ("content", "references"):
            subject.compare_exactly(f"{name} under {mode.__name__}", quietly[name], results[0][name].detach())


@covers("CDN-32", cases=representative_contrastive_denoising, feature="backward")
def test_gradient_of_the_embedding(subject: Subject, case: Case) -> None:
    """Each row gets the sum of the gradients of the queries whose content it is."""
    bound, inputs = calling(subject, make(subject, case), case)
    arguments = bound.arguments(inputs)
    leaf = arguments["label_embedding"].requires_grad_()
    with seeded(subject):
        output = output_of(bound, arguments)
    fill = Filler(subject.dtype, subject.settings.seed, "incoming", case.note)
    grad_content = fill.normal(*output["content"].shape).to(fill.dtype)
    incoming_there = lay_out(grad_content.to(subject.device), case.layout)
    gradients = bound.pull_back(output["content"], incoming_there, {"label_embedding": leaf})
    seen = arranged(subject, case, output)
    incoming = grad_content.double().unflatten(1, seen.noised_labels.shape[1:])
    expected, size = (torch.zeros(case["label_embedding"].shape, dtype=torch.float64) for _ in range(2))
    for row in range(len(expected)):
        own = incoming[seen.noised_labels == row]
        expected[row], size[row] = own.sum(0), own.abs().sum(0)
    limit = (int(seen.everywhere.sum()) + 1) * round_off(subject) * size
    got = subject.gradient("label_embedding", gradients)
    subject.compare("grad_label_embedding", got, expected, limit)


def one(subject: Subject) -> Iterator[Case]:
    yield denoising_case(subject, (2, 1), "an ordinary call", label_noise_ratio=0.0, denoising_number=4)


@covers("CDN-33", cases=one, once=True)
def test_counts_must_fit(subject: Subject, case: Case) -> None:
    for counts in ((2, 2), (1, 1), (3, 0, 1)):
        wrong = case.having(target_counts=torch.tensor(counts))
        raises(subject, wrong, f"target_counts {counts} are not the counts of {len(case['target_labels'])} boxes")


@covers("CDN-34", cases=one, once=True)
def test_labels_must_be_classes(subject: Subject, case: Case) -> None:
    for label in (-1, len(case["label_embedding"])):
        labels = case["target_labels"].clone()
        labels[1] = label
        raises(subject, case.having(target_labels=labels), f"a label is {label}")


@covers("CDN-35", cases=representative_contrastive_denoising)
def test_the_output_is_the_callers(subject: Subject, case: Case) -> None:
    with seeded(subject):
        first = returned(subject, case)
        first = {name: tensor for name, tensor in first.items() if isinstance(tensor, Tensor)}
        copies = {name: tensor.detach().clone() for name, tensor in first.items()}
        returned(subject, case)
    for name, tensor in first.items():
        subject.compare_exactly(f"{name}, after a later call", tensor.detach(), copies[name])
        with torch.no_grad():
            tensor.fill_(1)
    with seeded(subject):
        again = returned(subject, case)
    for name in copies:
        subject.compare_exactly(f"{name}, after an earlier one was overwritten", again[name].detach(), copies[name])


@covers("CDN-36", cases=quiet)
def test_no_memory_of_the_past(subject: Subject, case: Case) -> None:
    """The same storage with other contents: labels, boxes and embedding turned round."""
    made = make(subject, case)
    bound, inputs = calling(subject, made, case)
    storage = bound.arguments(inputs)
    names = ("target_labels", "target_boxes", "label_embedding")
    other = case.having(**{name: case[name].flip(0) for name in names})
    for tried in (case, other):
        with torch.no_grad():
            for name in names:
                storage[name].copy_(tried[name])
            output = output_of(bound, storage)
        seen = arranged(subject, tried, output)
        bound.drop_held()
        unchanged_labels(subject, seen)
        unmoved(subject, seen)


@covers("CDN-30", cases=sampled, dtypes=("float64", "float32"))
def test_fresh_noise_for_the_same_tensors(subject: Subject, case: Case) -> None:
    made = make(subject, case)
    bound, inputs = calling(subject, made, case)
    storage = bound.arguments(inputs)
    with seeded(subject):
        moves = []
        for _ in range(2):
            moves.append(arranged(subject, case, output_of(bound, storage)).moves)
    uncorrelated("signs of moves in two calls with the same tensors", moves[0] > 0, moves[1] > 0)
