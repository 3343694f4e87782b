"""`detr-spec predict`: boxes that a trained model finds, drawn on images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from detr_reference.cli import CannotDo, need
from detr_reference.commands.options import in_a_folder, model_options, recipe_of, write_json


@click.command(short_help="Draw what a trained model finds on images.")
@click.argument("checkpoint", type=click.Path())
@click.argument("images", type=click.Path(), nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--output", "-o", type=click.Path(), default="detections", show_default=True, help="A .png file, or a folder."
)
@click.option("--threshold", type=click.FloatRange(0, 1), default=0.3, show_default=True, help="The least score.")
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="At most so many boxes an image.")
@click.option(
    "--json", "json_file", type=click.Path(), callback=in_a_folder, metavar="FILE", help="Write the boxes as JSON."
)
@model_options
def predict(
    checkpoint: str,
    images: tuple[str, ...],
    output: str,
    threshold: float,
    top: int | None,
    json_file: str | None,
    recipe: str | None,
    values: tuple[str, ...],
    device: str | None,
) -> None:
    """Draw what CHECKPOINT finds on each IMAGE, and write a PNG of each.

    CHECKPOINT is the folder of a run of `detr-spec train`, a checkpoint in it, or a published .pth or
    .safetensors file together with --recipe.

    \b
    detr-spec predict runs/smoke photo.jpg -o found.png
    detr-spec predict detr-r50-e632da11.pth --recipe detr-r50-500 *.jpg --threshold 0.7
    """
    need("predict", "train", "PIL")
    places = destinations(images, output)

    from rich.console import Console

    from detr_reference.training.detection.drawing import above, draw_boxes
    from detr_reference.training.detection.predicting import as_json, detect_on, read_upright, table_of
    from detr_reference.training.detection.trained import open_trained
    from detr_reference.training.distributed import processes

    found = []
    try:
        with processes(device) as group:
            trained = open_trained(checkpoint, recipe=recipe_of(recipe, values), device=group.device)
            for image, place in places.items():
                picture = read_upright(image)
                drawn = above(detect_on(trained, picture), threshold, top)
                _save(draw_boxes(picture, drawn, trained.categories.names), place)
                Console().print(table_of(drawn, trained.categories, title=f"{image} -> {place}"))
                found.append({"image": image, "written": str(place), "boxes": as_json(drawn, trained.categories)})
    except ValueError as error:
        raise CannotDo(str(error)) from error
    if json_file is not None:
        write_json(json_file, found)


def destinations(images: tuple[str, ...], output: str) -> dict[str, Path]:
    """Where the picture of each image is written: to the file `output`, or into the folder of that name.

    Raises:
        CannotDo: several images have one name, or the picture would take the place of an image.
    """
    to = Path(output)
    if to.suffix.lower() == ".png" and not to.is_dir():
        if len(images) > 1:
            raise CannotDo(f"{len(images)} images need a folder, not the file {output}")
        places = {images[0]: to}
    else:
        places = {image: to / f"{Path(image).stem}.png" for image in images}
    by_place: dict[Path, str] = {}
    for image, place in places.items():
        if place in by_place:
            raise CannotDo(f"{by_place[place]} and {image} would both be written to {place}")
        by_place[place] = image
    originals = {Path(image).resolve() for image in images}
    for place in by_place:
        if place.resolve() in originals:
            raise CannotDo(f"{place} is one of the images; choose another --output")
    return places


def _save(picture: Any, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place, format="PNG")
    except OSError as error:
        raise CannotDo(f"cannot write {place}: {error.strerror or error}") from error
