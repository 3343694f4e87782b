"""`detr-spec compare`: what it shows and returns, and what it says of anything that cannot be done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from detr_conformance.cli.compare import OPERATIONS_COMPARED
from detr_conformance.comparing import reference as reference_runs
from detr_conformance.comparing.command import Asked, prepared
from detr_conformance.comparing.configuration import read_config
from detr_conformance.comparing.inputs import LAYERS, random_images, read_images
from detr_conformance.comparing.selecting import Candidates, selecting
from detr_conformance.comparing.weights import random_weights
from detr_conformance.harness.block import STRUCTURAL
from detr_conformance.harness.fill import Filler
from detr_conformance.stages import STAGES
from detr_conformance.topics.detectors.cases.models import SETTINGS, model_parameters
from detr_reference.cli import CannotDo
from detr_reference.detectors import dino
from detr_reference.detectors.config import DINOConfig
from detr_reference.training.recipes.toml_text import toml_text
from helpers import commands
from helpers.ports.dino import as_published

TINY = {**SETTINGS["dino"], "shared_heads": True, "num_classes": 91, "label_embedding_size": 92, "backbone_width": 4}
PORTS = """
from detr_conformance import PARTS, STAGES, Target
from helpers.ports.dino import MISTAKES, RIGHT

stages = STAGES["dino"] | PARTS["dino"]
right = Target("right", {"dino": RIGHT["right"]}, stages=stages)
wrong = Target("wrong", {"dino": MISTAKES["two norms of a decoder layer exchanged"][0]}, stages=stages)
blind = Target("blind", {"dino": RIGHT["right"]})
raises = Target("raises", {"dino": lambda config, state_dict: (lambda **inputs: 1 / 0)})
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "ports.py").write_text(PORTS, encoding="utf-8")
    (tmp_path / "tiny.toml").write_text(toml_text(TINY), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reference_runs, "ROUNDINGS", STRUCTURAL)
    return tmp_path


def compare(target: str, *options: str) -> Any:
    return commands.run("compare", target, "--operation", "dino", "--config", "tiny.toml", "--size", "64x96", *options)


def published_file(path: Path) -> dict[str, torch.Tensor]:
    """As DINO's own training saves it, with the numbers that are returned under the reference's names."""
    state_dict = {n: t.float() for n, t in model_parameters("dino", TINY, Filler("float64", 5, "file")).items()}
    torch.save({"model": as_published(state_dict, DINOConfig(**TINY)), "epoch": 11}, path)
    return state_dict


def test_a_mistake_with_published_weights(folder: Path) -> None:
    published_file(folder / "published.pth")
    result = compare("ports.py:wrong", "--checkpoint", "published.pth", "--json", "found.json")
    assert result.exit_code == 1, result.output
    assert "DIFFERS from decoder.1.norm_0 on (" in result.output
    said = " ".join(result.output.split())
    assert "first divergence: stage decoder.1, off by" in said
    assert "weights: published.pth; images (1, 3, 64, 96)" in said
    lines = [line.split() for line in result.output.splitlines()]
    assert [line[0] for line in lines if line[-1:] == ["differs"]] == ["decoder.1", ".norm_0"]
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    assert (found["verdict"], found["first_divergence"], found["part"]) == ("differ", "decoder.1", "decoder.1.norm_0")
    assert found["config"]["num_queries"] == TINY["num_queries"]
    for stage in found["stages"]:
        assert (stage["share"] <= 1) == (stage["verdict"] == "agrees")


def test_a_right_one(folder: Path) -> None:
    result = compare("ports.py:blind")
    assert result.exit_code == 0, result.output
    assert "weights: random, seed 0" in result.output
    assert "the target names no stages, so that only its outputs were compared" in " ".join(result.output.split())
    assert result.output.splitlines()[-1].startswith("AGREES (")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("ports.py:none", (), "ports.py has no 'none'; its targets are: "),
        ("transformers", (), "transformers stands for several targets; give one of "),
        ("cpu-kernel", ("--dtype", "float16", "--device", "nowhere"), "there is no device nowhere"),
        ("ports.py:right", ("--dtype", "float16"), "right does not claim float16; it claims float32"),
        ("ports.py:right", ("--size", "480"), "--size needs HEIGHTxWIDTH"),
        ("ports.py:right", ("--size", "99999x64"), "each from 32 to 4096"),
        ("ports.py:right", ("--config", "no.toml"), "--config no.toml: it cannot be read"),
        ("ports.py:right", ("--config", "dino-r50"), "did you mean dino-r50-"),
        ("ports.py:right", ("--config", "detr-r50-500"), "it is a recipe of detr, not of dino"),
        ("ports.py:right", ("--checkpoint", "no.pth"), "no file at no.pth"),
        ("ports.py:right", ("--checkpoint", "tiny.toml"), "tiny.toml is not a"),
        ("ports.py:right", ("--image", "no.png"), "no.png: no such file"),
        ("ports.py:raises", (), "the call raised ZeroDivisionError"),
        ("ports.py:right", ("--json", "no/found.json"), "cannot write no/found.json"),
    ],
)
def test_what_cannot_be_done(target: str, options: tuple[str, ...], said: str) -> None:
    result = compare(target, *options)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("folder")
def test_what_is_not_provided() -> None:
    result = commands.run("compare", "ports.py:right", "--operation", "detr")
    assert result.exit_code == 2
    assert "right does not provide detr; it provides dino" in result.output


def test_weights_of_each_kind(folder: Path) -> None:
    """A published file, and the reference's own names; both the same numbers."""
    state_dict = published_file(folder / "published.pth")
    save_file(state_dict, folder / "own.safetensors")
    for name in ("published.pth", "own.safetensors"):
        asked = Asked("ports.py:right", "dino", "tiny.toml", name, size="64x96")
        weights = prepared(asked).weights
        assert weights.source == name
        assert weights.tensors.keys() == state_dict.keys()
        assert all(torch.equal(weights.tensors[each], state_dict[each]) for each in state_dict)


def test_weights_that_do_not_fit(folder: Path) -> None:
    published_file(folder / "published.pth")
    with pytest.raises(CannotDo, match="given by --config"):
        prepared(Asked("ports.py:right", "dino", None, "published.pth", size="64x96"))
    damaged = published_file(folder / "published.pth")
    damaged["class_embed.0.bias"][3] = torch.nan
    save_file(damaged, folder / "nan.safetensors")
    with pytest.raises(CannotDo, match=r"not finite: class_embed\.0\.bias"):
        prepared(Asked("ports.py:right", "dino", "tiny.toml", "nan.safetensors", size="64x96"))


def test_configurations(tmp_path: Path) -> None:
    """Fields, a recipe's file, a recipe's name, and what would fill the memory."""
    (tmp_path / "fields.toml").write_text("num_queries = 7\n", encoding="utf-8")
    (tmp_path / "recipe.toml").write_text('[model]\nname = "dino"\nnum_queries = 8\n', encoding="utf-8")
    assert read_config("dino", str(tmp_path / "fields.toml")).num_queries == 7
    assert read_config("dino", str(tmp_path / "recipe.toml")).num_queries == 8
    assert read_config("dino", "dino-r50-4scale-12").shared_heads
    assert read_config("decoder_layer", None).operation_order.count("cross_attn") == 1
    for text, said in (
        ("num_queries = 9_000_000", "more than the 65536"),
        ("queries = 3", "queries is unknown"),
        ("x", "Expected"),
    ):
        (tmp_path / "wrong.toml").write_text(text, encoding="utf-8")
        with pytest.raises(CannotDo, match=said):
            read_config("dino", str(tmp_path / "wrong.toml"))
    (tmp_path / "wrong.toml").write_text("feedforward_dim = 65536\nembed_dim = 65536", encoding="utf-8")
    with pytest.raises(CannotDo, match="parameters, more than"):
        prepared(Asked("reference", "dino", str(tmp_path / "wrong.toml")))


def test_photographs(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "red.png")
    read = read_images([str(tmp_path / "red.png")] * 2, (64, 96))
    assert read["images"].shape == (2, 3, 64, 96)
    assert float(read["images"][0, 0].min()) == pytest.approx((1 - 0.485) / 0.229, abs=1e-5)
    assert not read["mask"].any()
    assert read_images([str(tmp_path / "red.png")], None)["images"].shape == (1, 3, 800, 1066)


def test_a_random_image_has_padding() -> None:
    made = random_images((64, 96), 0)
    assert made["mask"][0, 0, -1]
    assert made["mask"][0, -1, 0]
    assert not made["mask"][0, 0, 0]
    assert made["images"][made["mask"][:, None].expand_as(made["images"])].eq(0).all()


def test_random_weights_select_proposals() -> None:
    """Not the cells near the border and in the padding, which all hold the same."""
    config = DINOConfig(**TINY)
    model = dino.build(config, random_weights("dino", config, 0).tensors).double().eval()
    seen: list[Candidates] = []
    with torch.no_grad(), selecting("dino", seen):
        model(**{n: t.double() if t.is_floating_point() else t for n, t in random_images((160, 320), 0).items()})
    found = seen[0]
    none = found.boxes[0].eq(1).all(-1)
    assert none.any()
    assert not none[found.indices[0]].any()
    assert float(found.scores[0, none].max()) < float(found.scores[0, ~none].median())


def test_the_operations() -> None:
    assert set(OPERATIONS_COMPARED) == {*STAGES, *LAYERS}
