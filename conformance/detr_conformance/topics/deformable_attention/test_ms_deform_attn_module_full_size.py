"""`ms_deform_attn_module` at full size. Clauses: MSDM-22 and MSDM-23.

The profile full-size runs these tests, and no other.
"""

from __future__ import annotations

from functools import partial

from detr_conformance.harness.block import agrees, gradients_agree
from detr_conformance.harness.case import Case, LazyCases
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.deformable_attention.cases.full_size import modules_of_workloads
from detr_conformance.topics.deformable_attention.cases.module_sizes import (
    FULL_CAP,
    covering_modules,
    on_small_maps,
    steady_case,
    steady_cases,
)
from detr_conformance.topics.deformable_attention.checks.large_module import judge_large_module

OPERATION = "ms_deform_attn_module"
full_size = partial(covers, profile="full-size", costly=True)


def published_modules(subject: Subject) -> LazyCases:
    return LazyCases([partial(steady_case, subject, made, note=name) for name, made in modules_of_workloads()])


@full_size("MSDM-23", cases=published_modules, dtypes=("float64", "float32"))
def test_modules_at_full_size(subject: Subject, case: Case) -> None:
    judge_large_module(subject, case)


def modules_together_at_full_size(subject: Subject) -> LazyCases:
    made = covering_modules(subject.settings.seed, FULL_CAP)
    made = on_small_maps(made) if subject.torch_dtype.itemsize == 2 else made
    return steady_cases(subject, made, "sizes of the module together")


@full_size("MSDM-22", cases=modules_together_at_full_size)
def test_sizes_of_the_module_together_at_full_size(subject: Subject, case: Case) -> None:
    (gradients_agree if subject.backward else agrees)(subject, case)
