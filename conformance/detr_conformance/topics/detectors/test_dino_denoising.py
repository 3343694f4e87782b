"""DINO's denoising queries beside chapter 13: their noise, step by step, and who sees whom. Clauses: DINO-23 to 33."""

from __future__ import annotations

import torch

from detr_conformance.harness.block import outputs, parameters_by_name, seeded
from detr_conformance.harness.block_case import settings_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.denoising.checks.independence import (
    any_two,
    means,
    of_labels,
    of_moves,
    two_calls,
    unsuspicious,
)
from detr_conformance.topics.denoising.checks.queries import NEGATIVE, POSITIVE, unchanged_labels, uniform, within
from detr_conformance.topics.detectors.cases.dino_denoising import a_sample, many_labels, several_noises
from detr_conformance.topics.detectors.checks.dino_denoising import denoising_queries, labels_reached
from detr_conformance.topics.detectors.checks.models import trained_outputs, training

FLOAT32 = ("float32",)
OPERATION = "dino"


@covers("DINO-23", cases=several_noises, dtypes=FLOAT32)
def test_denoising_boxes_are_noised(subject: Subject, case: Case) -> None:
    """Every positive near its box, every negative further off, in every group; without noise all where they belong."""
    settings = settings_of(case)
    seen = denoising_queries(subject, case, trained_outputs(subject, case))
    groups = seen.content.shape[1]
    expect(groups >= 3, f"{groups} denoising groups, where there are three and more", where="groups")
    if settings["box_noise_scale"]:
        within(seen, POSITIVE, 0.0, 1.0)
        within(seen, NEGATIVE, 1.0, 2.0)
    else:
        own = seen.boxes[:, None, None].expand(seen.noised_boxes.shape)[seen.everywhere]
        limit = torch.full_like(own, seen.slack)
        subject.compare("dn_boxes without noise", seen.noised_boxes[seen.everywhere], own, limit)
        unchanged_labels(subject, seen)


@covers("DINO-23", cases=a_sample, dtypes=FLOAT32)
def test_denoising_is_noised_by_the_law(subject: Subject, case: Case) -> None:
    """Rates of labels and signs, lengths, and the independence of any two places."""
    seen = denoising_queries(subject, case, trained_outputs(subject, case))
    moves, labels = of_moves(seen), of_labels(seen, settings_of(case).get("label_noise_ratio", 0.5))
    for what, features in (("moves", moves), ("labels", labels)):
        unsuspicious(what, means(features))
        unsuspicious(what, any_two(features))
    for kind in (POSITIVE, NEGATIVE):
        uniform("moves of corners", seen.moves[:, :, kind].abs(), float(kind), kind + 1.0)


@covers("DINO-24", cases=a_sample, dtypes=FLOAT32)
def test_fresh_noise_in_every_step(subject: Subject, case: Case) -> None:
    """Of one module, with an evaluation in between, and of another one; the same again after the same seed."""
    module = training(subject, case)
    calls = []
    with seeded(subject):
        calls.append(outputs(subject, case, module))
        calls.append(outputs(subject, case, module))
        outputs(subject, case, module.eval())
        calls.append(outputs(subject, case, module.train()))
        calls.append(outputs(subject, case, training(subject, case)))
    seen = [denoising_queries(subject, case, found) for found in calls]
    ratio = settings_of(case).get("label_noise_ratio", 0.5)
    every = [of_moves(each).beside(of_labels(each, ratio)) for each in seen]
    for one in range(len(every)):
        for other in range(one):
            unsuspicious("two steps", two_calls(every[other], every[one]))
    with seeded(subject):
        again = outputs(subject, case, module)
    same = torch.equal(again["dn_boxes"], calls[0]["dn_boxes"])
    expect(same, "after the same seed the same module noises boxes otherwise", where="dn_boxes")


@covers("DINO-25", cases=many_labels, dtypes=FLOAT32, feature="backward")
def test_groups_are_apart(subject: Subject, case: Case) -> None:
    """A denoising query depends on the labels of its own group, on all of them, and on no others."""
    module = training(subject, case)
    (table,) = parameters_by_name(subject.operation, module, case)["label_enc.weight"]
    for image, groups in enumerate(labels_reached(subject, case, module, table)):
        for queries in groups:
            together = set.union(*queries)
            expect(
                len(together) <= len(queries),
                f"{len(queries)} denoising queries of a group of image {image} depend on {len(together)} labels",
                where="dn_logits",
                expected=f"at most {len(queries)}",
                got=str(len(together)),
            )
            expect(
                all(reached == together for reached in queries),
                f"queries of one group of image {image} depend on different labels: {list(map(sorted, queries))}",
                where="dn_logits",
            )
