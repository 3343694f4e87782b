"""docs/examples/record_calls.py: the calls of transformers' Deformable DETR become cases for its kernels."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detr_conformance.recording.calls import read_calls
from helpers.commands import run
from helpers.places import EXAMPLES

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model() -> Any:
    """Small, with random weights: those of a fresh model let no sampling offset depend on the query."""
    from transformers import DeformableDetrConfig, DeformableDetrModel, ResNetConfig

    stages = ["stage2", "stage3", "stage4"]
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1] * 4, layer_type="basic", out_features=stages
    )
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    torch.manual_seed(0)
    made = DeformableDetrModel(DeformableDetrConfig(backbone_config=backbone, num_queries=5, **sizes, **heads)).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made


def test_its_kernels_are_judged_by_its_calls(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("record_calls", EXAMPLES / "record_calls.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.chdir(tmp_path)
    recordings = example.record_cores(model, "calls")
    with torch.no_grad():
        model(torch.randn(2, 3, 72, 90))
    for recording in recordings:
        recording.remove()
    assert [recording.calls for recording in recordings] == [1, 1]
    assert [operation for operation, _, _ in read_calls(Path("calls"))] == ["ms_deform_attn"] * 2
    for target in ("cpu-kernel", "transformers-deformable_detr"):
        result = run("check", target, "--cases", "calls", "--operation", "ms_deform_attn", "--json", "report.json")
        assert result.exit_code == 0, result.output
        assert json.loads(Path("report.json").read_text())["clauses"]["MSDA-33"]["verdict"] == "pass"
