"""Where the images of a training are, and whether they are in order."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from detr_reference.cli import CannotDo
from detr_reference.data.categories import Categories
from detr_reference.data.coco import CocoDetection, checked
from detr_reference.training.distributed import Processes, together
from detr_reference.training.learning.models import model_config
from detr_reference.training.recipes.recipe import Recipe


class ImagePlaces(NamedTuple):
    """Folders of images and their annotations; `generated` is the folder they are written to first, if any."""

    train_images: Path
    train_annotations: Path
    val_images: Path
    val_annotations: Path
    generated: Path | None = None


def places(
    recipe: Recipe,
    output: Path,
    coco: str | None,
    train_images: str | None,
    train_annotations: str | None,
    val_images: str | None,
    val_annotations: str | None,
) -> ImagePlaces:
    """Those that the options name; else, for a recipe of generated images, the folder data in that of the run.

    Raises:
        CannotDo: the options leave something open, or say it twice.
    """
    named = (train_images, train_annotations, val_images, val_annotations)
    if coco is not None:
        if any(named):
            raise CannotDo("--coco names all images and annotations; leave --train-* and --val-* out, or --coco")
        return _as_coco(Path(coco))
    if any(named):
        if not (train_images and train_annotations and val_images and val_annotations):
            raise CannotDo("--train-images, --train-annotations, --val-images and --val-annotations belong together")
        return ImagePlaces(Path(train_images), Path(train_annotations), Path(val_images), Path(val_annotations))
    if recipe.data.set == "shapes":
        return _as_coco(output / "data")._replace(generated=output / "data")
    raise CannotDo(f"the recipe {recipe.name} needs images: give --coco DIR, or --train-* and --val-* (see --help)")


def _as_coco(folder: Path) -> ImagePlaces:
    annotations = folder / "annotations"
    return ImagePlaces(
        folder / "train2017",
        annotations / "instances_train2017.json",
        folder / "val2017",
        annotations / "instances_val2017.json",
    )


def training_images(
    recipe: Recipe, where: ImagePlaces, group: Processes, console: Console
) -> tuple[CocoDetection, CocoDetection]:
    """Images to train and to evaluate with. The main process checks them, and writes those that are generated.

    Raises:
        DataError: something is wrong with them.
        ValueError: they have other categories than the model, or were generated for another recipe.
    """
    if group.main:
        if where.generated is not None and not where.val_annotations.exists():
            _generate(recipe, where.generated, console)
        training = _checked("training", where.train_images, where.train_annotations, None, console)
    together(group)
    if not group.main:
        training = CocoDetection(where.train_images, where.train_annotations)
    if where.generated is not None and len(training) != recipe.data.images:
        raise ValueError(
            f"{where.generated} has {len(training)} images to train on, and the recipe asks for {recipe.data.images}; "
            "remove that folder, or give another output folder"
        )
    known = _categories(recipe, training.categories)
    if known != training.categories:
        training = CocoDetection(where.train_images, where.train_annotations, known)
    if group.main:
        validation = _checked("validation", where.val_images, where.val_annotations, known, console)
    together(group)
    if not group.main:
        validation = CocoDetection(where.val_images, where.val_annotations, known)
    return training, validation


def _checked(
    name: str, images: Path, annotations: Path, categories: Categories | None, console: Console
) -> CocoDetection:
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"checking the {name} images", total=None)
        return checked(
            images,
            annotations,
            categories,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )


def _categories(recipe: Recipe, found: Categories) -> Categories:
    """Which label is which category: numbered, or by their ids, as the number of classes of the model asks for."""
    classes = model_config(recipe.model.name, recipe.model.settings).num_classes
    if classes == len(found):
        return found
    if classes > max(found.ids):
        return found.by_id(classes)
    raise ValueError(
        f"the model has {classes} classes, but the annotations have {len(found)} categories with ids up to "
        f"{max(found.ids)}; --set model.num_classes={len(found)} fits them"
    )


def _generate(recipe: Recipe, folder: Path, console: Console) -> None:
    from detr_reference.data.shapes import write_shapes

    console.print(f"writing images of shapes to {folder}", highlight=False)
    data = recipe.data
    write_shapes(folder, images=data.images, validation_images=data.validation_images, seed=data.seed, sides=data.sides)
