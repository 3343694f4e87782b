"""Files as users have them: wrapped, prefixed, damaged, hostile; every fault is one clear line, and nothing is run."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from detr_reference.checkpoints import CheckpointError, load_checkpoint, reading
from detr_reference.checkpoints.reading import read_file
from detr_reference.checkpoints.unwrapping import unwrapped
from detr_reference.features.config import ResNetConfig
from detr_reference.features.resnet import build
from helpers import published_models as published

CONFIG = ResNetConfig(blocks=(1, 2, 1, 1), width=4)


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.tensor([1.0, -2.0])}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


class Harmful:
    """Makes a folder when a pickle of it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_file(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_a_training_run_with_its_arguments(path: Path, weights: dict[str, Tensor]) -> None:
    prefixed = {f"module.{name}": tensor for name, tensor in weights.items()}
    arguments = argparse.Namespace(lr=1e-4, lr_drop_list=[33, 45], backbone="resnet50")
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))]).state_dict()
    torch.save({"model": prefixed, "optimizer": optimizer, "epoch": 11, "args": arguments}, path)
    found = unwrapped(read_file(path))
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize("key", ["ema_model", "ema_state"])
def test_the_moving_average(path: Path, weights: dict[str, Tensor], key: str) -> None:
    average = {name: tensor + 1 for name, tensor in weights.items()}
    torch.save({"model": weights, key: average}, path)
    assert torch.equal(unwrapped(read_file(path), key)["layer.bias"], average["layer.bias"])
    assert torch.equal(unwrapped(read_file(path))["layer.bias"], weights["layer.bias"])
    torch.save({"model": weights}, path)
    with pytest.raises(CheckpointError, match=f"no state dict '{key}'; it has 'model'"):
        unwrapped(read_file(path), key)


def test_a_prefix_that_not_all_names_have_is_a_name(weights: dict[str, Tensor]) -> None:
    assert "module.more" in unwrapped({**weights, "module.more": torch.zeros(1)})


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_alone(path: Path, weights: dict[str, Tensor], zipped: bool) -> None:
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    assert torch.equal(unwrapped(read_file(path))["layer.weight"], weights["layer.weight"])


def test_safetensors_whatever_the_file_is_called(path: Path, weights: dict[str, Tensor]) -> None:
    save_file(weights, path)
    assert torch.equal(unwrapped(read_file(path))["layer.weight"], weights["layer.weight"])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_harmful_pickle_is_refused_and_not_run(path: Path, tmp_path: Path, zipped: bool) -> None:
    folder = tmp_path / "made"
    torch.save({"model": {"a": torch.zeros(1)}, "extra": Harmful(folder)}, path, _use_new_zipfile_serialization=zipped)
    assert f"its pickle asks for {os.mkdir.__module__}.mkdir" in refusal(path)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("protocol", "reason"), [(2, "mkdir"), (4, "not a file of weights"), (5, "not a file of weights")]
)
def test_a_bare_harmful_pickle_is_refused_and_not_run(path: Path, tmp_path: Path, protocol: int, reason: str) -> None:
    folder = tmp_path / "made"
    path.write_bytes(pickle.dumps({"model": Harmful(folder)}, protocol=protocol))
    assert reason in refusal(path)
    assert not folder.exists()


def test_what_is_let_through_is_forgotten_afterwards(path: Path, weights: dict[str, Tensor]) -> None:
    before = torch.serialization.get_safe_globals()
    torch.save({"model": weights, "args": argparse.Namespace()}, path)
    read_file(path)
    assert set(torch.serialization.get_safe_globals()) == set(before)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_truncated_file(path: Path, kind: str, share: float) -> None:
    state = {"layer.weight": torch.arange(600.0)}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "not a" in refusal(path)


@pytest.mark.parametrize(
    "content", [b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x80", b"PK"]
)
def test_something_else(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "not a" in refusal(path)


def test_no_file_no_content_too_much(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(path) == f"no file at {path}"
    assert refusal(path.parent) == f"{path.parent} is not a file"
    path.write_bytes(b"")
    assert "has 0 bytes" in refusal(path)
    path.write_bytes(bytes(11))
    monkeypatch.setattr(reading, "LARGEST_FILE", 10)
    assert "has 11 bytes" in refusal(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list and no state dict"),
        ({"model": 3}, "no state dict 'model'; it has 'model'"),
        ({"model": {}}, "has no entry"),
        ({"epoch": 3, "lr": 0.1}, "tensors alone, but has 'epoch', 'lr'"),
        ({str(i): i for i in range(8)}, "'0', '1', '2', '3', '4' and 3 more"),
    ],
)
def test_no_state_dict(content: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        unwrapped(content)


def test_weights_of_another_name() -> None:
    with pytest.raises(CheckpointError, match="must be one of model, ema_model, ema_state, got 'best'"):
        unwrapped({}, "best")


def resnet_file() -> dict[str, Tensor]:
    return published.state_dict(published.load_record("torchvision_resnet"))


def test_everything_that_does_not_fit_is_reported_at_once(path: Path) -> None:
    state = resnet_file()
    del state["layer1.0.conv2.weight"], state["bn1.bias"]
    state["layer3.0.bn1.weight"] = torch.ones(7)
    state["layer1.4.conv1.weight"] = torch.ones(1)
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, build(CONFIG))
    assert str(caught.value).splitlines() == [
        "the file does not fit the model:",
        "  unknown: layer1.4.conv1.weight, which the model does not have",
        "  missing: bn1.bias",
        "  missing: layer1.0.conv2.weight",
        "  shape: layer3.0.bn1.weight is (7,) and should be (16,)",
    ]


def test_names_that_no_table_has_are_reported_at_once(path: Path) -> None:
    torch.save({**resnet_file(), "head.weight": torch.ones(1), "layer1.0.conv4.bias": torch.ones(1)}, path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, build(CONFIG))
    assert str(caught.value).splitlines()[1:] == ["  unknown: head.weight", "  unknown: layer1.0.conv4.bias"]


def test_formats_that_are_not_there(path: Path, weights: dict[str, Tensor]) -> None:
    torch.save(weights, path)
    with pytest.raises(CheckpointError, match="no format knows the names of this file"):
        load_checkpoint(path, build(CONFIG))
    with pytest.raises(CheckpointError, match="no format 'yolo'; it must be one of detr, deformable_detr, dino"):
        load_checkpoint(path, build(CONFIG), format="yolo")


def test_the_model_is_left_alone_and_then_takes_the_parameters(path: Path) -> None:
    torch.save(resnet_file(), path)
    model = build(CONFIG)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = load_checkpoint(path, model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert list(state) == list(before)
    model.load_state_dict(state)
