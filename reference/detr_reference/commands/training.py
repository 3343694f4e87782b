"""What `detr-spec train` does once its options are understood."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from detr_reference.cli import CannotDo
from detr_reference.commands.training_images import places, training_images
from detr_reference.data.coco import CocoDetection
from detr_reference.training.curves import draw_curves, read_log
from detr_reference.training.detection.evaluation import table_of
from detr_reference.training.detection.prediction_grid import draw_predictions
from detr_reference.training.detection.trained import save_trained
from detr_reference.training.distributed import processes
from detr_reference.training.learning.kernel import sampling_function
from detr_reference.training.logs import LOG
from detr_reference.training.loop import Result, check_folder, train
from detr_reference.training.recipes.recipe import Recipe


@dataclass(frozen=True)
class TrainingOptions:
    """The options of the command that go beyond the recipe, as they were given."""

    coco: str | None
    train_images: str | None
    train_annotations: str | None
    val_images: str | None
    val_annotations: str | None
    resume: bool
    workers: int
    log_steps: int
    ms_deform_attn: str | None
    backbone_weights: str | None


def train_and_show(
    recipe: Recipe, output: Path, device: str | None, options: TrainingOptions, console: Console
) -> None:
    """Train, print COCO's figures, and write the model, a picture of predictions and one of the curves.

    Raises:
        ValueError: a user's mistake, or training that diverged; the message says what.
    """
    check_folder(output, options.resume)
    core = None if options.ms_deform_attn is None else sampling_function(options.ms_deform_attn)
    weights = None if options.backbone_weights is None else Path(options.backbone_weights)
    if weights is not None and not weights.is_file():
        raise CannotDo(f"no file of backbone weights at {weights}")
    with processes(device) as group:
        if not group.main:
            console = Console(quiet=True)
        given = (
            options.coco,
            options.train_images,
            options.train_annotations,
            options.val_images,
            options.val_annotations,
        )
        training, validation = training_images(recipe, places(recipe, output, *given), group, console)
        result = train(
            recipe,
            training,
            validation,
            output,
            group=group,
            resume=options.resume,
            core=core,
            backbone_weights=weights,
            workers=options.workers,
            log_steps=options.log_steps,
            console=console,
        )
        if group.main:
            _keep(recipe, output, validation, result)
            console.print(table_of(result.figures))
            console.print(f"in {output}: model.safetensors, predictions.png, curves.png, log.jsonl", highlight=False)


def _keep(recipe: Recipe, output: Path, validation: CocoDetection, result: Result) -> None:
    """What `detr-spec evaluate` and `predict` read, and two pictures to look at."""
    save_trained(output, result.model, recipe, validation.categories)
    draw_predictions(validation, result.detections, output / "predictions.png")
    draw_curves({recipe.name: read_log(output / LOG)}, output / "curves.png")
