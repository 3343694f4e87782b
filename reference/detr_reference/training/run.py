"""One run of a recipe: its images, its folder, and what is done once in a while."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from detr_reference.data.batches import Batch, collate
from detr_reference.data.coco import CocoDetection
from detr_reference.data.loading import EvaluationImages, TrainingImages
from detr_reference.training.atomic import whole_file
from detr_reference.training.detection.detecting import detect
from detr_reference.training.detection.evaluation import Twelve, coco_results, evaluate_boxes
from detr_reference.training.distributed import Processes, from_all, from_main
from detr_reference.training.learning.initial_model import initial_model
from detr_reference.training.learning.kernel import default_sampling_function
from detr_reference.training.learning.learner import Learner
from detr_reference.training.learning.models import MODELS
from detr_reference.training.random_state import random_state
from detr_reference.training.recipes.recipe import Recipe
from detr_reference.training.sampling import EpochBatches
from detr_reference.training.state import Checkpoint, check_same_run, read_checkpoint, write_checkpoint

CHECKPOINT, RECIPE = "checkpoint.pt", "recipe.toml"


class Run:
    """What stays as it is from the beginning to the end of a run."""

    def __init__(
        self,
        recipe: Recipe,
        training: CocoDetection,
        validation: CocoDetection,
        output: Path,
        group: Processes,
        workers: int,
    ) -> None:
        self.recipe, self.output, self.group = recipe, output, group
        self.digest = images_digest(training)
        self._categories, self._truth, self._workers = training.categories, validation, workers
        augmentation = recipe.data.augmentation
        self._training = TrainingImages(training, augmentation, recipe.training.seed)
        self._validation = EvaluationImages(validation, augmentation)
        self.steps = self._order(0, 0).steps

    def learner(self, core: Callable[..., Any] | None, backbone_weights: Path | None) -> Learner:
        trainable, device = MODELS[self.recipe.model.name], self.group.device
        if core is None and trainable.takes_core:
            core = default_sampling_function(device)
        model = initial_model(self.recipe, core, backbone_weights).to(device)
        return Learner(trainable, model, self.recipe, self.group, self.steps)

    def begin(self) -> None:
        """The folder, with the recipe in it."""
        self.output.mkdir(parents=True, exist_ok=True)
        if self.group.main:
            with whole_file(self.output / RECIPE) as file:
                file.write(self.recipe.to_toml().encode())

    def begun(self) -> Checkpoint:
        """The run's own checkpoint.

        Raises:
            CheckpointError: it cannot be read, or is of another recipe or of other images.
        """
        path = self.output / CHECKPOINT
        checkpoint = read_checkpoint(path)
        check_same_run(path, checkpoint, self.recipe.to_dict(), self.digest)
        return checkpoint

    def batches(self, epoch: int, done: int) -> Iterator[list[Batch]]:
        """Those of each step that is left of an epoch."""
        self._training.set_epoch(epoch)
        loader = DataLoader(
            self._training,
            batch_sampler=self._order(epoch, done),
            collate_fn=collate,
            num_workers=self._workers,
            pin_memory=self.group.device.type == "cuda",
            generator=torch.Generator(),  # a loader draws a seed for its workers, from the global stream otherwise
        )
        batches = iter(loader)
        while step := list(islice(batches, self.recipe.training.accumulation)):
            yield [batch.to(self.group.device) for batch in step]

    def _order(self, epoch: int, done: int) -> EpochBatches:
        training = self.recipe.training
        return EpochBatches(
            self._training,
            self.group,
            batch_size=training.batch_size,
            accumulation=training.accumulation,
            seed=training.seed,
            epoch=epoch,
            done=done,
        )

    def save(self, learner: Learner, step: int) -> None:
        states = from_all(random_state(self.group.device), self.group)
        if self.group.main:
            checkpoint = Checkpoint(
                step=step,
                recipe=self.recipe.to_dict(),
                categories=self._categories.to_list(),
                images=self.digest,
                random_states=states,
                **learner.state(),
            )
            write_checkpoint(self.output / CHECKPOINT, checkpoint)

    def evaluate(self, learner: Learner) -> tuple[Twelve, list[dict[str, Any]]]:
        """One image at a time, so that the figures depend neither on batches nor on the number of processes."""
        trainable = MODELS[self.recipe.model.name]
        found = detect(trainable, learner.best_model, self._validation, self.group, workers=self._workers)
        figures = None
        if self.group.main:
            figures = evaluate_boxes(self._truth.coco, coco_results(found, self._truth.categories))
        shared = from_main(figures, self.group)
        assert shared is not None
        return shared, found


def images_digest(images: CocoDetection) -> str:
    return hashlib.sha256(repr(list(images.image_ids)).encode()).hexdigest()
