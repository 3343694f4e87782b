"""A checkpoint is whole or not at all, and is read only where it is one."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_reference.checkpoints.errors import CheckpointError
from detr_reference.training.atomic import whole_file
from detr_reference.training.random_state import random_state, set_random_state
from detr_reference.training.state import FORMAT, Checkpoint, check_same_run, read_checkpoint, write_checkpoint

CPU = torch.device("cpu")


def a_checkpoint(**changes: Any) -> Checkpoint:
    content: dict[str, Any] = {
        "step": 7,
        "recipe": {"name": "tiny", "training": {"epochs": 2, "drops": [1]}},
        "categories": [{"id": 1, "name": "one"}],
        "images": "0a",
        "model": {"weight": torch.arange(3.0)},
        "optimizer": {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.99)}]},
        "schedule": {"last_epoch": 7, "lr_lambdas": [None]},
        "ema": None,
        "random_states": [random_state(CPU)],
    }
    return Checkpoint(**content | changes)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path, written = tmp_path / "checkpoint.pt", a_checkpoint()
    write_checkpoint(path, written)
    read = read_checkpoint(path)
    assert torch.equal(read.model.pop("weight"), written.model.pop("weight"))
    assert torch.equal(read.random_states[0].pop("torch"), written.random_states[0].pop("torch"))
    assert read == written
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_what_fails_halfway_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, a_checkpoint())
    before = path.read_bytes()
    with pytest.raises(TypeError, match="str"), whole_file(path) as file:
        file.writelines([b"half", "of it"])  # type: ignore[list-item]
    assert path.read_bytes() == before
    write_checkpoint(path, a_checkpoint(step=8))
    assert read_checkpoint(path).step == 8
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_the_file_takes_its_place_once_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "file", []
    path.write_bytes(b"old")
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append(path.read_bytes()), sync(descriptor)))
    with whole_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert seen == [b"old", b"new"]  # first the file is synced, then, after it was renamed, the folder


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, a_checkpoint())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="not a whole file of weights"):
        read_checkpoint(path)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}}, "not the checkpoint of a run of `detr-spec train`"),
        ([1, 2], "not the checkpoint of a run"),
        ({"format": FORMAT, "step": "7", "recipe": {}}, r"damaged: it lacks, or .*, categories, .*step"),
        ({"format": FORMAT, "step": Harmful()}, "could run code"),
    ],
)
def test_a_file_of_something_else(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "checkpoint.pt")


def test_a_run_has_one_recipe() -> None:
    checkpoint, path = a_checkpoint(), Path("checkpoint.pt")
    same = {"training": {"drops": (1,), "epochs": 2}, "name": "tiny"}
    check_same_run(path, checkpoint, same, "0a")
    other = {"name": "tiny", "training": {"epochs": 3, "seed": 1, "drops": [1]}}
    with pytest.raises(CheckpointError, match=r"training\.epochs was 2 and is 3; training\.seed was absent and is 1"):
        check_same_run(path, checkpoint, other, "0a")
    with pytest.raises(CheckpointError, match="other training images"):
        check_same_run(path, checkpoint, same, "0b")


def test_random_numbers_go_on() -> None:
    state = random_state(CPU)
    drawn = torch.rand(3), random.random()
    torch.rand(5)
    random.random()
    set_random_state(state, CPU)
    assert torch.equal(torch.rand(3), drawn[0])
    assert random.random() == drawn[1]
