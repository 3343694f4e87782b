"""`detr-spec train`: train a detector from a recipe."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from detr_reference.cli import CannotDo, need
from detr_reference.commands.options import settings

if TYPE_CHECKING:
    from rich.console import Console

    from detr_reference.training.recipes.recipe import Recipe


@click.command(short_help="Train a detector from a recipe.")
@click.argument("recipe", default="smoke")
@click.option("--list", "only_list", is_flag=True, help="List the recipes, and do nothing else.")
@click.option("--dry-run", is_flag=True, help="Show schedule, groups of parameters, memory and time; train nothing.")
@click.option("--coco", type=click.Path(), metavar="DIR", help="COCO's folder: train2017/, val2017/, annotations/.")
@click.option("--train-images", type=click.Path(), metavar="DIR", help="Other images to train on,")
@click.option("--train-annotations", type=click.Path(), metavar="FILE", help="their annotations, in COCO's format,")
@click.option("--val-images", type=click.Path(), metavar="DIR", help="other images to evaluate on,")
@click.option("--val-annotations", type=click.Path(), metavar="FILE", help="and theirs: all four belong together.")
@click.option("--output", type=click.Path(), metavar="DIR", help="Folder of the run.  [default: runs/<recipe>]")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the folder of the run.")
@click.option("--device", metavar="NAME", help="Such as cpu or cuda:1.  [default: a GPU if there is one]")
@click.option("--workers", type=click.IntRange(min=0), default=2, show_default=True, help="Processes that read images.")
@click.option("--log-steps", type=click.IntRange(min=1), default=10, show_default=True, help="Steps between log lines.")
@click.option(
    "--ms-deform-attn",
    metavar="FUNCTION",
    help="Your kernel: module:function or file.py:function.  [default: ours on a CPU, the reference's elsewhere]",
)
@click.option(
    "--backbone-weights", type=click.Path(), metavar="FILE", help="A pretrained ResNet, such as torchvision's."
)
@click.option("--set", "values", multiple=True, metavar="KEY=VALUE", help="Change the recipe; repeatable.")
@click.pass_context
def train(
    context: click.Context,
    recipe: str,
    only_list: bool,
    dry_run: bool,
    values: tuple[str, ...],
    output: str | None,
    device: str | None,
    **options: Any,
) -> None:
    """Train a detector from RECIPE, an installed recipe or a .toml file.

    The default, "smoke", trains a small DINO on generated images of coloured shapes, which are written
    first. All images and annotations are checked before training begins.

    \b
    detr-spec train                                 the smoke run, in runs/smoke
    detr-spec train --resume                        go on with it, if it was stopped
    detr-spec train --list                          the recipes
    detr-spec train dino-r50-4scale-12 --dry-run    what one would take
    detr-spec train dino-r50-4scale-12 --coco COCO --backbone-weights resnet50.pth
    detr-spec train my.toml --set training.epochs=3 --set training.batch_size=8
    torchrun --nproc-per-node 8 -m detr_reference.cli train dino-r50-4scale-12 --coco COCO

    \b
    The folder of the run then holds
      recipe.toml                    what was trained, with the changes of --set
      checkpoint.pt                  for --resume; written after each epoch
      log.jsonl, tensorboard/        losses, learning rates, AP, images a second
      model.safetensors, model.json  for detr-spec evaluate and predict
      predictions.png, curves.png    to look at

    \b
    Exit status
      0    it is trained
      2    it could not be
      130  interrupted; --resume goes on from the last checkpoint
    """
    from rich.console import Console

    from detr_reference.training.recipes.recipe import Recipe

    console = Console()
    try:
        if only_list:
            _list(console)
            return
        known = Recipe.read(recipe).with_values(settings(values))
        if dry_run:
            _dry_run(known, console)
            return
        _train(known, Path("runs", known.name) if output is None else Path(output), device, console, context, options)
    except (ValueError, OSError) as error:
        raise CannotDo(str(error)) from error


def _list(console: Console) -> None:
    from detr_reference.commands.recipe_table import table_of_recipes

    console.print(table_of_recipes())


def _dry_run(recipe: Recipe, console: Console) -> None:
    from detr_reference.training.dry_run.plan import dry_run
    from detr_reference.training.dry_run.tables import show

    show(dry_run(recipe), console)


def _train(
    recipe: Recipe, output: Path, device: str | None, console: Console, context: click.Context, options: dict[str, Any]
) -> None:
    need("train", "train", "pycocotools", "PIL", "tensorboard", "matplotlib")
    from detr_reference.commands.training import TrainingOptions, train_and_show

    try:
        train_and_show(recipe, output, device, TrainingOptions(**options), console)
    except KeyboardInterrupt:
        _interrupted(context, output)


def _interrupted(context: click.Context, output: Path) -> NoReturn:
    """Says how to go on."""
    if (output / "checkpoint.pt").is_file():
        click.echo(f"interrupted; this goes on from the last checkpoint:\n  {_resuming(context)}", err=True)
    else:
        click.echo("interrupted before the first checkpoint: there is nothing to resume", err=True)
    raise SystemExit(130)


def _resuming(context: click.Context) -> str:
    """The command line that was given, with --resume."""
    words = ["detr-spec", "train"]
    for parameter in context.command.params:
        name = str(parameter.name)
        if name == "resume" or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        for each in value if isinstance(value, tuple) else (value,):
            words += [str(each)] if isinstance(parameter, click.Argument) else [parameter.opts[0], str(each)]
    return shlex.join([*words, "--resume"])
