"""Two processes in a real gloo group do what one process with all images does.

Images of one size, as padding differs otherwise and the neck's group norm sees it; a model without denoising or
dropout, as each process draws its own random numbers.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detr_reference.data.batches import Batch, collate
from detr_reference.data.loading import EvaluationImages, TrainingImages
from detr_reference.training.detection.detecting import detect
from detr_reference.training.detection.evaluation import Twelve
from detr_reference.training.distributed import Processes, from_main, mean_of_all, processes
from detr_reference.training.learning.initial_model import initial_model
from detr_reference.training.learning.learner import Learner
from detr_reference.training.learning.models import MODELS
from detr_reference.training.learning.objective import loss_of
from detr_reference.training.loop import train
from detr_reference.training.recipes.recipe import Recipe
from detr_reference.training.sampling import EpochBatches
from detr_reference.training.state import read_checkpoint
from helpers.fork_server import fork_server
from helpers.tiny.tiny_training import tiny_images, tiny_recipe, write_images
from helpers.tiny.training_cases import SMALL, small_batch, small_model

WORLD = 2
BOXES = [3, 2, 0, 0, 1, 1]  # the second process has no box at its first step

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch without gloo")


def recipe_of(**training: Any) -> Recipe:
    still = {"denoising": "none", "dropout": 0.0, "num_queries": 6}
    return tiny_recipe(
        still, {"scales": [48], "flip": 0.5}, epochs=1, checkpoint_steps=None, **{"batch_size": 4, **training}
    )


def learner_of(group: Processes) -> Learner:
    recipe = recipe_of()
    return Learner(MODELS["dino"], initial_model(recipe).double(), recipe, group, steps=4)


def batch_of(folder: Path, indices: list[int]) -> Batch:
    images = TrainingImages(tiny_images(folder)[0], recipe_of().data.augmentation, seed=0)
    batch = collate([images[index] for index in indices])
    return batch._replace(
        images=batch.images.double(), targets=batch.targets._replace(boxes=batch.targets.boxes.double())
    )


def stepped(learner: Learner, batches: list[Batch]) -> dict[str, Any]:
    result = learner.step(1, batches)
    return {
        "losses": {"loss": result.loss, "norm": result.gradient_norm, **result.losses},
        "gradients": {name: each.grad for name, each in learner.model.named_parameters() if each.requires_grad},
        "parameters": learner.model.state_dict(),
    }


def detected(folder: Path, group: Processes) -> list[dict[str, Any]]:
    recipe = recipe_of()
    images = EvaluationImages(tiny_images(folder)[1], recipe.data.augmentation)
    found = detect(MODELS["dino"], initial_model(recipe), images, group)
    return sorted(found, key=lambda each: each["image_id"])


def one_process(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in environment.items()}}
    data = Path(folder)
    with processes("cpu") as group:
        assert (group.rank, group.count, group.main) == (rank, WORLD, rank == 0)
        assert from_main(rank, group) == 0
        assert mean_of_all(torch.tensor([1.0, 3.0]) * rank, group).tolist() == [0.5, 1.5]
        found = {
            "whole": stepped(learner_of(group), [batch_of(data, [[0, 1], [2, 3]][rank])]),
            "added up": stepped(learner_of(group), [batch_of(data, each) for each in [[[0], [1]], [[2], [3]]][rank]]),
            "detected": detected(data, group),
        }
        result = train(recipe_of(), *tiny_images(data), data / f"run of {WORLD}", group=group)
        found |= {"figures": result.figures.named(), "order": list(order_of(group))}
    torch.save(found, data / f"{rank}.pt")


def order_of(group: Processes, **changes: Any) -> EpochBatches:
    settings = {"batch_size": 4, "accumulation": 1, "seed": 3, "epoch": 5, **changes}
    return EpochBatches(range(11), group, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    write_images(folder / "train", [(48, 64)] * 6, BOXES)
    write_images(folder / "val", [(48, 64)] * 3, [1, 0, 2], seed=1)
    return folder


@pytest.fixture(scope="module")
def both(folder: Path) -> list[dict[str, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork_server()
    mp.start_processes(one_process, (str(folder), port), nprocs=WORLD, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def assert_same_step(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for kind, rtol in (("losses", 1e-5), ("gradients", 1e-9), ("parameters", 1e-9)):  # losses are logged in float32
        torch.testing.assert_close(found[kind], expected[kind], rtol=rtol, atol=rtol / 100)


def test_a_step_is_that_of_one_process(folder: Path, both: list[dict[str, Any]]) -> None:
    alone = stepped(learner_of(Processes(torch.device("cpu"))), [batch_of(folder, [0, 1, 2, 3])])
    for each in both:
        assert_same_step(each["whole"], alone)


def test_batches_added_up_are_averaged(folder: Path, both: list[dict[str, Any]]) -> None:
    """First one image of each process, then another: the gradients are exchanged once."""
    alone = stepped(learner_of(Processes(torch.device("cpu"))), [batch_of(folder, [0, 2]), batch_of(folder, [1, 3])])
    for each in both:
        assert_same_step(each["added up"], alone)


def test_detections_are_of_every_image_once(folder: Path, both: list[dict[str, Any]]) -> None:
    alone = detected(folder, Processes(torch.device("cpu")))
    assert [each["image_id"] for each in alone] == [1, 2, 3]
    for each in both:
        torch.testing.assert_close(each["detected"], alone, rtol=0, atol=0)


def test_a_run_is_that_of_one_process(folder: Path, both: list[dict[str, Any]]) -> None:
    result = train(recipe_of(), *tiny_images(folder), folder / "run of 1")
    one, two = ([json.loads(line) for line in (folder / f"run of {n}" / "log.jsonl").open()] for n in (1, WORLD))
    assert len(one) == len(two) == 2
    assert one[0]["losses"] == pytest.approx(two[0]["losses"], rel=1e-4)
    assert one[0]["gradient_norm"] == pytest.approx(two[0]["gradient_norm"], rel=1e-3)
    for each in both:
        assert each["figures"] == pytest.approx(result.figures.named(), abs=1e-6)
    assert len(read_checkpoint(folder / f"run of {WORLD}" / "checkpoint.pt").random_states) == WORLD
    alone = train(recipe_of(), *tiny_images(folder), folder / f"run of {WORLD}", resume=True)
    assert alone.figures == Twelve(*both[0]["figures"].values())


@pytest.mark.parametrize("counts", [(2, 0, 1), (0, 0, 0)])
@pytest.mark.parametrize("case", SMALL)
def test_every_parameter_has_a_gradient(case: str, counts: tuple[int, ...]) -> None:
    """So DistributedDataParallel waits for none in vain, and need not look for unused ones."""
    model, name = small_model(case), SMALL[case][0]
    loss_of(MODELS[name], model, small_batch(counts))[0].backward()
    assert not [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]


def test_processes_share_the_images_of_a_step(both: list[dict[str, Any]]) -> None:
    alone = list(order_of(Processes(torch.device("cpu"))))
    shared = [sorted([*a, *b]) for a, b in zip(*(each["order"] for each in both), strict=True)]
    assert shared == [sorted(each) for each in alone]
    assert len(alone) == 2
