"""`detr-spec evaluate`: COCO's twelve figures of a trained model, or of detections in a file."""

from __future__ import annotations

from pathlib import Path

import click

from detr_reference.cli import CannotDo, need
from detr_reference.commands.options import in_a_folder, model_options, recipe_of, write_json


@click.command(short_help="COCO's twelve figures of a trained model.")
@click.argument("checkpoint", type=click.Path(), required=False)
@click.option("--coco", type=click.Path(), metavar="DIR", help="COCO's folder: val2017/ and annotations/ in it.")
@click.option("--images", type=click.Path(), metavar="DIR", help="Other images,")
@click.option("--annotations", type=click.Path(), metavar="FILE", help="and their annotations, in COCO's format.")
@model_options
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Images at a time.")
@click.option("--workers", type=click.IntRange(min=0), default=2, show_default=True, help="Processes that read images.")
@click.option(
    "--json", "json_file", type=click.Path(), callback=in_a_folder, metavar="FILE", help="Write the figures as JSON."
)
@click.option(
    "--save-detections",
    type=click.Path(),
    callback=in_a_folder,
    metavar="FILE",
    help="Write the detections, as COCO's results.",
)
@click.option("--detections", type=click.Path(), metavar="FILE", help="Evaluate these results instead of a model.")
def evaluate(
    checkpoint: str | None,
    coco: str | None,
    images: str | None,
    annotations: str | None,
    recipe: str | None,
    values: tuple[str, ...],
    device: str | None,
    batch_size: int,
    workers: int,
    json_file: str | None,
    save_detections: str | None,
    detections: str | None,
) -> None:
    """Evaluate CHECKPOINT on the validation images of COCO, or on other annotated images.

    CHECKPOINT is the folder of a run of `detr-spec train`, a checkpoint in it, or a published .pth or
    .safetensors file together with --recipe. A run on generated images needs no others. torchrun shares
    the images among several GPUs.

    \b
    detr-spec evaluate runs/smoke
    detr-spec evaluate detr-r50-e632da11.pth --recipe detr-r50-500 --coco COCO
    detr-spec evaluate --detections results.json --annotations instances_val2017.json
    """
    need("evaluate", "train", "pycocotools", "PIL")
    if (checkpoint is None) == (detections is None):
        raise CannotDo("give a CHECKPOINT or --detections, one of the two")
    if checkpoint is not None and not (coco or images or annotations) and _generated(checkpoint).is_dir():
        coco = str(_generated(checkpoint))
    folder, file = _places(coco, images, annotations, needs_images=detections is None)

    from rich.console import Console

    from detr_reference.commands.evaluating import detected_by_model, detected_in_file
    from detr_reference.training.detection.evaluation import evaluate_boxes, table_of
    from detr_reference.training.distributed import processes

    try:
        with processes(device) as group:
            if checkpoint is not None and folder is not None:
                known = recipe_of(recipe, values)
                truth, results = detected_by_model(
                    checkpoint, known, folder, file, group, batch_size=batch_size, workers=workers
                )
            else:
                truth, results = detected_in_file(Path(str(detections)), file)
            if group.main:
                twelve = evaluate_boxes(truth, results)
                Console().print(table_of(twelve))
                for path, content in ((json_file, twelve.named()), (save_detections, results)):
                    if path is not None:
                        write_json(path, content)
    except ValueError as error:
        raise CannotDo(str(error)) from error


def _generated(checkpoint: str) -> Path:
    """Where a run keeps the images that it generated, if it did."""
    return Path(checkpoint, "data")


def _places(
    coco: str | None, images: str | None, annotations: str | None, *, needs_images: bool
) -> tuple[Path | None, Path]:
    """The folder of images and the file of annotations, by either way to name them."""
    if coco is not None:
        if images is not None or annotations is not None:
            raise CannotDo("--coco names images and annotations; leave --images and --annotations out, or --coco")
        return Path(coco) / "val2017", Path(coco) / "annotations" / "instances_val2017.json"
    if annotations is None or (needs_images and images is None):
        raise CannotDo("say where the images are: --coco DIR, or --images DIR and --annotations FILE")
    return None if images is None else Path(images), Path(annotations)
