"""The profile full-size: every published call, every two sizes up to the largest, and cases that fit into memory."""

from __future__ import annotations

from itertools import combinations, product
from math import prod

import pytest

from detr_bench.workloads import TABLE
from detr_bench.workloads import WORKLOADS as MEASURED
from detr_conformance.harness.covering import pairs_of
from detr_conformance.harness.subject import Subject
from detr_conformance.running.trial import profile_of, suite_test_of, suite_tests
from detr_conformance.topics.deformable_attention.cases.core import structure_of
from detr_conformance.topics.deformable_attention.cases.full_size import (
    IMAGES,
    modules_of_workloads,
    whole_call,
    workloads_of,
)
from detr_conformance.topics.deformable_attention.cases.sizes import (
    FULL_CAP,
    FULL_CLASSES,
    FULL_MAPS,
    covering_structures,
    pairs_left_out,
    rows,
)
from detr_conformance.topics.deformable_attention.cases.workloads import WORKLOADS
from detr_reference import ms_deform_attn

KINDS = ("encoder", "decoder", "bevformer")
TESTS = [
    suite_test_of(judge)
    for operation in ("ms_deform_attn", "ms_deform_attn_module")
    for judge in suite_tests()[operation]
]


def test_every_workload_of_the_bench_is_judged_once() -> None:
    judged = [name for kind in KINDS for name, _ in workloads_of(kind)]
    assert sorted(judged) == sorted(WORKLOADS)
    assert MEASURED is WORKLOADS
    assert set(WORKLOADS) <= set(TABLE["ms_deform_attn"])


def test_they_have_the_sizes_that_are_named() -> None:
    of = {name: s for kind in KINDS for name, s in workloads_of(kind)}
    assert {len(of[name].levels) for name in ("dino-encoder", "dino-encoder-5-scale")} == {4, 5}
    assert of["dino-decoder-denoising"].queries == 1_100
    assert (of["bevformer-base"].queries, of["bevformer-base"].points, of["bevformer-base"].batch) == (
        40_000,
        8,
        IMAGES,
    )
    assert len(of["video-decoder-13-frames"].levels) == 13
    assert of["row-encoder-4096"].levels[0] == (1, 4096)
    assert {made.structure.coordinates for _, made in modules_of_workloads()} == {2, 4}


def test_every_two_classes_meet_in_a_row_or_are_named() -> None:
    found, left_out = rows(full=True)
    factors = {name: tuple(range(len(members))) for name, members in FULL_CLASSES.items()} | {"maps": FULL_MAPS}
    every = {((x, i), (y, j)) for x, y in combinations(factors, 2) for i, j in product(factors[x], factors[y])}
    assert every - set(left_out) == {pair for row in found for pair in pairs_of(row)}
    assert len(pairs_left_out()) == len(left_out)


def test_no_call_has_more_sampled_values_than_the_cap_or_a_table_too_large() -> None:
    for s in covering_structures(full=True):
        assert prod(s.samples) * s.channels <= FULL_CAP
        assert s.batch * s.cells * s.heads * s.channels <= FULL_CAP / 2


def test_the_profile_runs_these_tests_alone_and_mutants_are_judged_without_it() -> None:
    own = {test.name for test in TESTS if test.runs_in("full-size")}
    assert own == {test.name for test in TESTS if test.name.endswith("at_full_size")}
    assert len(own) == 6
    assert not any(test.runs_in("standard") for test in TESTS if test.name in own)
    assert {profile_of(clause) for clause in ("MSDA-58", "MSDA-59", "MSDM-22", "MSDM-23")} == {"standard"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_case_made_image_by_image_has_the_sizes_of_its_structure(dtype: str) -> None:
    s = covering_structures(full=True)[1]
    case = whole_call(Subject("ms_deform_attn", ms_deform_attn, dtype), s, "two images")
    assert structure_of(case) == s
