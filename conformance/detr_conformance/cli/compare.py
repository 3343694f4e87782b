"""`detr-spec compare`: a model or a layer beside the reference at the user's own sizes."""

from __future__ import annotations

import click

from detr_conformance.cli.completion import TargetName
from detr_conformance.target import DTYPES
from detr_reference.commands.options import in_a_folder

OPERATIONS_COMPARED = (
    *("detr", "deformable_detr", "dino"),
    *("ms_deform_attn_module", "encoder_layer", "decoder_layer", "dino_decoder"),
)


@click.command(short_help="A model or a layer beside the reference, at your own sizes.")
@click.argument("target", type=TargetName())
@click.option("--operation", type=click.Choice(OPERATIONS_COMPARED), required=True, help="What is compared.")
@click.option(
    "--config",
    metavar="C",
    help="The sizes: a .toml file with fields of the operation's configuration, or a recipe of `detr-spec train`, by "
    "name or as a .toml file.  [default: those that were published]",
)
@click.option(
    "--checkpoint",
    "--weights",
    "checkpoint",
    type=click.Path(),
    metavar="F",
    help="The parameters: a published .pth or .safetensors file, a run of `detr-spec train`, or a file under the "
    "reference's names.  [default: random ones]",
)
@click.option("--image", "images", type=click.Path(), multiple=True, metavar="I", help="A photograph; repeatable.")
@click.option(
    "--size",
    metavar="HxW",
    help="Height and width of the images.  [default: 480x640 of random ones, of others the shorter side 800]",
)
@click.option("--dtype", type=click.Choice(DTYPES), help="[default: the first that the target claims]")
@click.option("--device", help="[default: the first that the target claims]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws what is random.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False),
    callback=in_a_folder,
    metavar="F",
    help="Write the result as JSON.",
)
def compare(
    target: str,
    operation: str,
    config: str | None,
    checkpoint: str | None,
    images: tuple[str, ...],
    size: str | None,
    dtype: str | None,
    device: str | None,
    seed: int,
    json_file: str | None,
) -> None:
    """Compare TARGET with the reference stage by stage, at sizes, weights and images of your own.

    For a model that cannot be built as small as the cases of `check`. Stages, errors and limits are those of `check`:
    the limits come from runs of the reference with random roundings, which take most of the time. DINO with ResNet-50
    at 480x640 takes a few minutes and up to 7 GB of memory.

    \b
    detr-spec compare my_dino.py:target --operation dino
    detr-spec compare my_dino.py:target --operation dino --config dino-r50-4scale-12 \\
        --checkpoint checkpoint0011_4scale.pth --image street.jpg --size 480x640

    A stage that differs is looked into, as far as the target names parts of it, and then given the reference's input:
    what differs even so is wrong by itself, and what agrees inherits. Where queries are selected by their scores, cells
    whose scores are equal but for rounding may change places: what comes behind is judged with the target's selection.

    \b
    Exit status
      0  all stages and outputs agree
      1  one differs
      2  it could not be done
    """
    from detr_conformance.comparing.command import Asked, compare_target

    asked = Asked(target, operation, config, checkpoint, images, size, dtype, device, seed)
    raise SystemExit(compare_target(asked, json_file))
