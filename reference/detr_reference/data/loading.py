"""The images of a data set as a loader takes them: augmented for training, or as they are evaluated."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from detr_reference.data.augmentation import Augmentation
from detr_reference.data.coco import CocoDetection
from detr_reference.data.sample import Sample


class TrainingImages(Dataset[Sample]):
    """Each image in a form of this epoch, which depends on seed, epoch and image alone: not on the order in which the
    images are asked for, on the worker that reads it, or on what was trained before.

    Args:
        seed: from 0 up.
    """

    def __init__(self, dataset: CocoDetection, augmentation: Augmentation, seed: int) -> None:
        self._dataset, self._augmentation, self._seed = dataset, augmentation, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """To be called before the loader's workers start."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        return self._augmentation.training(self._dataset[index], _generator(self._seed, self._epoch, index))


class EvaluationImages(Dataset[Sample]):
    """Each image as it is evaluated."""

    def __init__(self, dataset: CocoDetection, augmentation: Augmentation) -> None:
        self._dataset, self._augmentation = dataset, augmentation

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        return self._augmentation.evaluation(self._dataset[index])


def _generator(*numbers: int) -> torch.Generator:
    """Other random numbers wherever one of these numbers is another; numpy's SeedSequence mixes them."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))
