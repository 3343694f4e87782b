"""What is said of the first divergence, also where there is little to say, and how a user sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from detr_conformance.harness.mismatch import Mismatch
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.stages import STAGES
from detr_conformance.staging.divergence import compared_stages, first_divergence
from detr_conformance.topics.detectors.cases.models import model_case
from detr_reference.detectors import dino
from helpers.planted_defects import (
    assert_found,
    case_of,
    planted,
    reference_order,
    subject_of,
    swapped,
    without_a_channel,
)

BROKEN = """
from detr_conformance import Target
from detr_conformance.stages import STAGES


def build(config, state_dict=None):
    from detr_reference.detectors.dino import build

    model = build(config, state_dict)
    for layer in model.transformer.decoder.layers[1:2]:  # a case may have a single one
        layer.register_forward_hook(lambda module, inputs, output: output * 1.01)
    return model


target = Target("broken", {"dino": build}, features=(), stages=STAGES["dino"])
"""


def test_the_message() -> None:
    """Stage, error over limit, the worst element, and what is right before it."""
    subject = subject_of(swapped("transformer.decoder.layers.1"))
    case = case_of(subject)
    said = first_divergence(subject, case)
    assert said is not None
    first, handed, before = said.splitlines()
    worst = compared_stages(subject, case)[-1].ratio
    assert first.startswith(f"first divergence: stage decoder.1, off by {worst:.3g} limits (decoder.1[")
    for word in ("expected", "got", "limit"):
        assert word in first
    assert handed == "given the reference's input, decoder.1 still differs; what comes behind it inherits"
    assert before.startswith("stages before it (error / limit): backbone (0.")
    assert before.split(", ")[-1].startswith("decoder_references.1 (")


@pytest.mark.parametrize("path", ["transformer.decoder.final", "class_embed"])  # a list of modules is never called
def test_a_stage_that_never_runs(path: str) -> None:
    subject = subject_of(dino.build, stages=STAGES["dino"] | {"decoder_norm": path})
    case = case_of(subject)
    assert_found(compared_stages(subject, case), "decoder_norm", reference_order(case, subject))
    said = first_divergence(subject, case)
    assert said is not None
    assert f"stage decoder_norm, which never ran: there is no module {path}, or it was not called" in said


def test_a_stage_of_another_size() -> None:
    subject = subject_of(dino.build, stages={"decoder_norm": "class_embed.0"})
    said = first_divergence(subject, case_of(subject))
    assert said is not None
    assert said.splitlines() == [
        "first divergence: stage decoder_norm, which has 40 numbers instead of 480",
        "stages before it (error / limit): none",
    ]


def test_a_model_that_raises() -> None:
    subject = subject_of(planted("transformer.decoder.layers.1", lambda output: output[:, :-1]))
    with pytest.raises(Mismatch, match="the call raised"):
        compared_stages(subject, case_of(subject))
    assert first_divergence(subject, case_of(subject)) is None


def test_only_some_stages_are_named() -> None:
    """The first of those that are named and come behind the defect."""
    some = {"encoder.{i}": "transformer.encoder.layers.{i}", "decoder.{i}": "transformer.decoder.layers.{i}"}
    for path, found in (("neck", "encoder.0"), ("transformer.enc_output", "decoder.0")):
        subject = subject_of(planted(path, without_a_channel), stages=some)
        assert compared_stages(subject, case_of(subject))[-1].name == found


def test_without_stages() -> None:
    for stages in (None, {}, {"input_proj": "input_proj"}):  # the last one is no stage of DINO
        subject = subject_of(dino.build, stages=stages)
        with pytest.raises(NotProvided, match="names no stages"):
            compared_stages(subject, case_of(subject))
        assert first_divergence(subject, case_of(subject)) is None
    function = subject_of(lambda config, state_dict: lambda **inputs: dino.build(config, state_dict).eval()(**inputs))
    assert first_divergence(function, case_of(function)) is None


def test_the_report_names_the_stage(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN, encoding="utf-8")
    command = [sys.executable, "-m", "detr_reference.cli", "check", "broken.py:target", "--operation", "dino"]
    command += ["--profile", "smoke", "--dtype", "float32", "--json", "report.json"]
    command += [part for clause in (1, 3, 4, 5, 9) for part in ("--clause", f"DINO-{clause}")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the first stage that differs is decoder.1" in done.stdout.split("clause   requirement")[0]
    assert "first divergence: stage decoder.1, off by" in " ".join(done.stdout.split())
    clauses = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["clauses"]
    failed = [clause for clause in clauses.values() if clause["verdict"] == "fail"]
    assert len(failed) > 2
    for clause in failed:
        assert "stage decoder.1" in (clause["failure"]["detail"] or "") + clause["message"]


def test_transformers_feeds_normed_outputs_with_auxiliary_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second layer is the first to be given what it should not be (chapter 17)."""
    pytest.importorskip("transformers")
    from detr_conformance.targets.transformers import detectors

    sizes = detectors._sizes
    for auxiliary, found in ((False, None), (True, "decoder.1")):
        monkeypatch.setattr(detectors, "_sizes", lambda config, on=auxiliary: {**sizes(config), "auxiliary_loss": on})
        stages = detectors.stages("detr")
        subject = Subject("detr", detectors.detr, "float32", "cpu", stages=stages)
        last = compared_stages(subject, model_case(subject, "plain"))[-1]
        assert (last.name if last.ratio > 1 else None) == found
