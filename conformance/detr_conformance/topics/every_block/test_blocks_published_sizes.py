"""Every block at the sizes of published models, and beyond any table of fixed size. Clause: BLK-30."""

from __future__ import annotations

from detr_conformance.harness.block import agrees, gradients_agree
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.every_block.cases.published import PUBLISHED, published
from detr_conformance.topics.every_block.checks import asks_for_gradients, is_module

OPERATIONS = tuple(PUBLISHED)


@covers("BLK-30", cases=published, once=True, costly=True)
def test_published_sizes(subject: Subject, case: Case) -> None:
    asked = asks_for_gradients(subject, case) or is_module(subject)
    if subject.backward and asked and PUBLISHED[subject.operation].smooth:
        gradients_agree(subject, case)
    else:
        agrees(subject, case)
