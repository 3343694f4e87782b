"""`ms_deform_attn` at full size: published calls, and any two sizes up to the largest. Clauses: MSDA-58 and MSDA-59.

The profile full-size runs these tests, and no other.
"""

from __future__ import annotations

from functools import partial

from detr_conformance.harness.case import Case, LazyCases
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.deformable_attention.cases.full_size import whole_call, workloads_of
from detr_conformance.topics.deformable_attention.cases.sizes import covering_structures
from detr_conformance.topics.deformable_attention.checks.large import MANY, judge_large

OPERATION = "ms_deform_attn"
full_size = partial(covers, profile="full-size", costly=True)


def published(subject: Subject, kind: str) -> LazyCases:
    return LazyCases([partial(whole_call, subject, s, name) for name, s in workloads_of(kind)])


@full_size("MSDA-59", cases=lambda subject: published(subject, "encoder"))
def test_encoders_at_full_size(subject: Subject, case: Case) -> None:
    judge_large(subject, case, MANY)


@full_size("MSDA-59", cases=lambda subject: published(subject, "decoder"))
def test_decoders_at_full_size(subject: Subject, case: Case) -> None:
    judge_large(subject, case, MANY)


@full_size("MSDA-59", cases=lambda subject: published(subject, "bevformer"))
def test_views_from_above_at_full_size(subject: Subject, case: Case) -> None:
    judge_large(subject, case, MANY)


def together_at_full_size(subject: Subject) -> LazyCases:
    made = covering_structures(subject.settings.seed, full=True)
    return LazyCases([partial(whole_call, subject, s, "sizes together") for s in made])


@full_size("MSDA-58", cases=together_at_full_size)
def test_sizes_together_at_full_size(subject: Subject, case: Case) -> None:
    judge_large(subject, case)
