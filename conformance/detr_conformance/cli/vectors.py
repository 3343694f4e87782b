"""`detr-spec vectors`: the suite's cases on disk, for implementations in any language."""

from __future__ import annotations

import click

from detr_conformance.cli.completion import OperationName
from detr_conformance.target import DTYPES

FOLDER = click.Path(file_okay=False)


@click.group(short_help="Cases on disk, for implementations in any language.")
def vectors() -> None:
    """Write the suite's cases to a folder, and judge what an implementation made of them.

    A vector is one call: inputs, parameters and settings; and of each result the right numbers in float64 and the limit
    of every element. Whoever reads them needs nothing of ours.
    """


@vectors.command(short_help="Write vectors to a folder.")
@click.argument("folder", type=FOLDER)
@click.option("--operation", multiple=True, type=OperationName(), help="Only this; repeatable.")
@click.option("--dtype", multiple=True, type=click.Choice(DTYPES), help="Only this; repeatable.")
@click.option(
    "--profile",
    type=click.Choice(("smoke", "standard", "full-size")),
    default="standard",
    show_default=True,
    help="How many cases; full-size writes the calls of published models, hundreds of megabytes of them.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws other cases.")
@click.option("--npz", is_flag=True, help="Write NumPy's npz instead of safetensors.")
def export(folder: str, operation: tuple[str, ...], dtype: tuple[str, ...], profile: str, seed: int, npz: bool) -> None:
    """Write vectors to FOLDER, which is made: manifest.json and a file of tensors for each operation.

    The same options write the same bytes. All of the profile standard takes at most 20 MB; what was left out for its
    size is counted in the manifest.
    """
    from detr_conformance.vectors.commands import export_vectors
    from detr_conformance.vectors.export import Wanted

    export_vectors(folder, Wanted(profile, operation, dtype, seed), npz)


@vectors.command(short_help="Judge outputs by vectors.")
@click.argument("folder", type=FOLDER)
@click.argument("outputs", type=FOLDER)
@click.option("--name", help="What the report calls the implementation.  [default: the folder of outputs]")
@click.option("--json", "json_file", type=click.Path(), metavar="FILE", help="Write the report as JSON.")
@click.option("--junit", "junit_file", type=click.Path(), metavar="FILE", help="Write the results as JUnit XML.")
@click.option("--html", "html_file", type=click.Path(), metavar="FILE", help="Write the report as a web page.")
def verify(
    folder: str, outputs: str, name: str | None, json_file: str | None, junit_file: str | None, html_file: str | None
) -> None:
    """Judge the files in OUTPUTS by the vectors in FOLDER: the report of `detr-spec check`.

    OUTPUTS holds a file a vector, <id>.safetensors or <id>.npz, with a tensor for each of its results. Operations and
    dtypes without any file are not provided; so are gradients, where an operation has none at all. What an
    implementation refuses stands in refused.json, {id: reason}, and is not exercised.

    \b
    Exit status
      0  all that was judged is right
      1  something is not
      2  cannot tell: no such folder, no outputs, or these are no vectors
    """
    from detr_conformance.running.checking import Outputs
    from detr_conformance.vectors.commands import verify_outputs

    raise SystemExit(verify_outputs(folder, outputs, name, Outputs(json_file, junit_file, html_file)))


@vectors.command(short_help="Derive vectors again and compare.")
@click.argument("folder", type=FOLDER)
def lint(folder: str) -> None:
    """Read FOLDER, derive every vector again, and report what differs.

    \b
    Exit status
      0  nothing differs
      1  something does
      2  FOLDER cannot be read
    """
    from detr_conformance.vectors.commands import lint_vectors

    raise SystemExit(lint_vectors(folder))
