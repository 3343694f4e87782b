"""The profile "training": what runs in it, what its report lists, and what it says where a target parts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detr_conformance.evidence.clauses import load_clauses
from detr_conformance.harness.drive import Failure
from detr_conformance.harness.mismatch import Mismatch
from detr_conformance.harness.subject import Settings, Subject
from detr_conformance.operations import TRAINING_CHAPTER
from detr_conformance.reporting.report import build_report
from detr_conformance.reporting.selection import Selection
from detr_conformance.running.mutants import MUTANTS, as_target
from detr_conformance.running.training_curves import curves_of, draw
from detr_conformance.running.trial import profile_of, suite_test_of, suite_tests, trials
from detr_conformance.targets.reference import target as reference
from detr_conformance.topics.training.cases import COUNTS, EXTENTS, SIZE, batch_of, steps_of
from detr_conformance.topics.training.checks.trajectory import (
    COMPARED,
    SHARP_SHARE,
    Step,
    case_with_margins,
    sharp_share,
    trajectory,
)
from detr_conformance.topics.training.checks.walk import predictions_checked
from detr_conformance.topics.training.test_training import test_parameter_gradients as judge_gradients
from detr_reference.deformable_attention.core import ms_deform_attn
from helpers.suite_options import suite_options

pytestmark = pytest.mark.usefixtures("unchecked_shapes")
TRAINING = Settings(profile="training", shrink=False)
OWN = {name for name, clause in load_clauses().items() if clause.chapter == TRAINING_CHAPTER}
BROKEN = """
from detr_conformance import Target
from detr_conformance.running.mutants import MUTANTS
from detr_reference.feed_forward.mlp import build

def make(name):
    return MUTANTS[name].build()

features = ("backward",)
tuned = Target("tuned", {"ms_deform_attn": make("training-tuned-wrong")}, dtypes=("float32",), features=features)
forward = Target("forward", {"ms_deform_attn": make("training-tuned-wrong")}, dtypes=("float32",), features=())
mlp = Target("mlp", {"mlp": build}, features=features)
"""


def test_the_trajectory_meets_what_the_chapter_says() -> None:
    case = case_with_margins("dino", 0)
    found = trajectory(case)
    assert len(found.steps) == steps_of(case) >= len(found.compared()) >= COMPARED * len(found.steps)
    assert sharp_share(found) >= SHARP_SHARE
    for name, first in found.steps[0].parameters.items():
        last = found.steps[-1].parameters[name]
        assert first.dtype == torch.float32
        assert not torch.equal(first, last), f"{name} has not moved"


def test_batches_have_unequal_images_with_none_one_and_many_boxes() -> None:
    case = case_with_margins("dino", 0)
    counts = {int(count) for step in range(steps_of(case)) for count in batch_of(case, step).targets.counts}
    assert {0, 1} < counts
    assert max(counts) >= 5
    assert (0, 0) in COUNTS
    batch = batch_of(case, 0)
    assert batch.images.shape == (2, 3, *SIZE)
    assert [tuple((~mask).sum(axis).max().item() for axis in (0, 1)) for mask in batch.mask] == list(EXTENTS[0])
    assert not batch.images.masked_select(batch.mask[:, None]).any()


def test_tests_run_in_one_kind_of_profile() -> None:
    core = replace(reference, provides={"ms_deform_attn": reference.provides["ms_deform_attn"]})
    tests = [suite_test_of(test) for test in suite_tests()["ms_deform_attn"]]
    own = [test for test in tests if test.runs_in("training")]
    assert {clause for test in own for clause in test.clauses} == OWN
    assert not any(test.runs_in(profile) for test in own for profile in ("smoke", "standard", "thorough"))
    assert {profile_of(clause) for clause in OWN} == {"training"}
    assert profile_of("MSDA-1") == "standard"
    assert list(trials(core, OWN)) == []  # in the standard profile


@pytest.mark.parametrize(("profile", "own"), [("standard", False), ("training", True)])
def test_a_report_lists_the_clauses_of_its_profile_alone(profile: str, own: bool) -> None:
    clauses = load_clauses()
    judged = "TRN-1" if own else "MSDA-1"
    result = {"event": "result", "test": "t.py::t", "clauses": [judged], "operation": "dino", "outcome": "pass"}
    start = {"event": "start", "target": {"name": "x"}, "target_info": {"provides": ["dino"]}}
    finish = {"event": "finish", "exit": 0, "seconds": 1.0}
    report = build_report([start, result, finish], clauses, target="x", selection=Selection(profile=profile))
    assert set(report["clauses"]) == (OWN if own else set(clauses) - OWN)
    missed = {name for name, entry in report["clauses"].items() if entry["verdict"] == "pass"}
    assert missed == {judged}


def test_a_late_error_is_reported_at_its_step() -> None:
    """The mutant is right for twenty backward passes, which are six steps of three layers and a part of the next."""
    target = as_target(MUTANTS["training-tuned-wrong"])
    subject = Subject("ms_deform_attn", target.provides["ms_deform_attn"], features=("backward",), settings=TRAINING)
    with pytest.raises(Failure) as caught:
        judge_gradients(subject)
    mismatch = caught.value.mismatch
    assert mismatch.where is not None
    assert mismatch.message.startswith("step 6: the gradient of ")
    assert mismatch.where.startswith("step 6, ")
    assert mismatch.ratio is not None
    assert mismatch.ratio > 100
    assert "steps that agree before it: 0, 1, 2, 3, 4, 5" in (mismatch.detail or "")


def test_free_running_trainings_are_drawn(tmp_path: Path) -> None:
    """A wrong function is off from the first step of its own on, while the reference is beside itself at none."""
    wrong = MUTANTS["training-x-gradient-dropped"].build()
    for core, off in ((ms_deform_attn, False), (wrong, True)):
        found = curves_of(Subject("ms_deform_attn", core, settings=TRAINING), steps=3)
        assert [each.title for each in found] == ["ms_deform_attn in deformable_detr", "ms_deform_attn in dino"]
        for each in found:
            assert len(each.target) == len(each.reference) == 3
            assert each.target[0] == pytest.approx(each.reference[0], rel=1e-5)
            assert (abs(each.target[2] - each.reference[2]) > 1e-2) == off
    draw(found, tmp_path / "curves.png", "mine")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "detr_reference.cli", "check", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BROKEN, encoding="utf-8")
    for arguments, said in (
        (("mine.py:mlp", "--profile", "training"), "provides nothing that the profile training is about"),
        (("mine.py:tuned", "--curves", "c.png"), "--curves belongs to --profile training"),
    ):
        done = check(tmp_path, *arguments)
        assert done.returncode == 2, done.stdout + done.stderr
        assert said in " ".join((done.stdout + done.stderr).split())
    done = check(tmp_path, "mine.py:tuned", "--profile", "training", "--json", "report.json")
    assert done.returncode == 1, done.stdout + done.stderr
    clauses = json.loads((tmp_path / "report.json").read_text())["clauses"]
    assert set(clauses) == OWN
    assert [name for name in sorted(clauses) if clauses[name]["verdict"] == "pass"] == ["TRN-1", "TRN-3"]
    assert clauses["TRN-2"]["failure"]["where"].startswith("step 6, ")
    assert "--profile training --replay" in clauses["TRN-2"]["replay"]


def test_whoever_claims_no_gradients_is_refused(tmp_path: Path) -> None:
    from detr_conformance.running.session import Session, SetupError

    (tmp_path / "mine.py").write_text(BROKEN, encoding="utf-8")
    options = suite_options("--detr-target", f"{tmp_path / 'mine.py'}:forward", "--detr-profile", "training")
    with pytest.raises(SetupError, match="does not claim the feature backward"):
        Session.from_options(options)


def test_predictions_of_no_denoising_query_may_be_left_out() -> None:
    shapes = {"pred_logits": (2, 1, 3, 4), "dn_logits": (2, 1, 0, 4)}
    step = Step(0, None, {}, shapes, {}, None, {}, {}, True)  # type: ignore[arg-type]
    found = predictions_checked({"pred_logits": torch.zeros(2, 1, 3, 4)}, step)
    assert found["dn_logits"].shape == (2, 1, 0, 4)
    with pytest.raises(Mismatch, match="there is no pred_logits"):
        predictions_checked({}, step)
