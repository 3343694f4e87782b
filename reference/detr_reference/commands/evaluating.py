"""What `detr-spec evaluate` does once its options are understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from rich.console import Console
from rich.progress import Progress

from detr_reference.data.coco import CocoDetection, checked, read_annotations
from detr_reference.data.loading import EvaluationImages
from detr_reference.training.detection.detecting import detect
from detr_reference.training.detection.evaluation import coco_results, read_results
from detr_reference.training.detection.trained import open_trained
from detr_reference.training.distributed import Processes, together
from detr_reference.training.recipes.recipe import Recipe

Detected = tuple[COCO, list[dict[str, Any]]]  # the ground truth, and results in COCO's form


def detected_by_model(
    checkpoint: str,
    recipe: Recipe | None,
    images: Path,
    annotations: Path,
    group: Processes,
    *,
    batch_size: int,
    workers: int,
) -> Detected:
    """What a model finds on all these images.

    Raises:
        ValueError: the model, the images or the annotations cannot be read, or do not fit each other.
    """
    trained = open_trained(checkpoint, recipe=recipe, device=group.device)
    console = Console(stderr=True)
    with Progress(console=console, disable=not (group.main and console.is_terminal), transient=True) as progress:
        if group.main:
            checking = progress.add_task("checking the images", total=None)
            checked(
                images,
                annotations,
                trained.categories,
                progress=lambda done, total: progress.update(checking, completed=done, total=total),
            )
        together(group)
        dataset = CocoDetection(images, annotations, trained.categories)
        task = progress.add_task("detecting", total=-(-len(dataset) // group.count))
        found = detect(
            trained.trainable,
            trained.model,
            EvaluationImages(dataset, trained.recipe.data.augmentation),
            group,
            batch_size=batch_size,
            workers=workers,
            advance=lambda images: progress.advance(task, images),
        )
    return dataset.coco, coco_results(found, trained.categories)


def detected_in_file(detections: Path, annotations: Path) -> Detected:
    """Results that are saved, and the ground truth without its images.

    Raises:
        ValueError: either cannot be read.
    """
    return read_annotations(annotations), read_results(detections)
