"""`detr-spec check`: does an implementation agree with the spec?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from detr_conformance.cli.completion import ClauseId, OperationName, TargetName
from detr_conformance.target import DTYPES
from detr_reference.cli import CannotDo

if TYPE_CHECKING:
    from detr_conformance.evidence.clauses import Clause

PROFILES = ("smoke", "standard", "thorough", "full-size", "training")


@click.command(short_help="Does an implementation agree with the spec?")
@click.argument("target", type=TargetName(), required=False)
@click.option(
    "--runner",
    metavar="CMD",
    help="In the place of TARGET: the command that starts a program which speaks the protocol of runners.",
)
@click.option("--operation", multiple=True, type=OperationName(), help="Only this; repeatable.")
@click.option(
    "--clause", "clauses", multiple=True, type=ClauseId(), help="Only this, as in MSDA-7, or all of MSDA; repeatable."
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="standard",
    show_default=True,
    help="How much to try; full-size and training run tests of their own instead, see above.",
)
@click.option(
    "--shapes",
    type=click.Choice(("any", "few")),
    default="any",
    show_default=True,
    help="few: for what is compiled anew for each shape, as by jax.jit. Structures are rounded to few, numbers vary; "
    "the report says which cases that leaves out.",
)
@click.option("--device", help="Only this device, such as cuda; it must be one that the target claims.")
@click.option("--dtype", type=click.Choice(DTYPES), help="Only this dtype.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    show_default="0; of the thorough profile a random one, which the report names",
    help="Draws other cases.",
)
@click.option(
    "--isolate",
    is_flag=True,
    help="Run the target in a process of its own: a crash, a hang or an exit is then the verdict of its case, and "
    "nothing that the target does reaches the judge.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="With --isolate or --runner: what one call may take.",
)
@click.option(
    "--memory-limit",
    type=click.FloatRange(min=0.1),
    metavar="GIB",
    show_default="three quarters of the machine's",
    help="With --isolate or --runner: what the target's process may allocate.",
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes to test in.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(),
    metavar="FILE",
    help="Write the report as JSON; compressed if FILE ends in .gz.",
)
@click.option("--junit", "junit_file", type=click.Path(), metavar="FILE", help="Write the results as JUnit XML.")
@click.option("--html", "html_file", type=click.Path(), metavar="FILE", help="Write the report as a web page.")
@click.option(
    "--replay",
    type=click.Path(exists=True, dir_okay=False),
    metavar="CASE_FILE",
    help="Run only this saved case, one that failed before.",
)
@click.option(
    "--exitfirst", "-x", is_flag=True, help="Stop at the first failure; the report says that it is incomplete."
)
@click.option(
    "--cases",
    "calls",
    type=click.Path(exists=True, file_okay=False),
    metavar="FOLDER",
    help="Judge the calls that detr_conformance.record saved there, in the place of the suite's own.",
)
@click.option("--coverage", is_flag=True, help="Show which sizes, and pairs of sizes, the calls of the run reached.")
@click.option(
    "--cases-dir",
    type=click.Path(file_okay=False),
    default="detr-cases",
    show_default=True,
    help="Where failing cases are saved.",
)
@click.option(
    "--curves",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="With --profile training: draw the losses of free-running trainings into this PNG.",
)
def check(
    target: str | None,
    runner: str | None,
    operation: tuple[str, ...],
    clauses: tuple[str, ...],
    profile: str,
    shapes: str,
    device: str | None,
    dtype: str | None,
    seed: int | None,
    isolate: bool,
    time_limit: float,
    memory_limit: float | None,
    jobs: int,
    json_file: str | None,
    junit_file: str | None,
    html_file: str | None,
    replay: str | None,
    exitfirst: bool,
    calls: str | None,
    coverage: bool,
    cases_dir: str,
    curves: str | None,
) -> None:
    """Check TARGET, an implementation, against the clauses of the spec.

    TARGET is an installed name (see `detr-spec targets`), package.module:attribute, or
    path/to/file.py:attribute. The beginning of several installed names, such as "transformers", stands
    for all of them; with --operation, for those that provide it. An implementation in another language is a program
    that speaks a protocol over standard input and output, given by --runner "CMD" (see `detr-spec runner-test`).

    The profile training asks other clauses than the rest, those of chapter 21: a small model is trained by the
    reference, and at each of its steps the target's losses and parameter gradients are compared at the same
    parameters and the same batch. It is about ms_deform_attn, which is put into a Deformable DETR and a DINO, and
    about the models detr, deformable_detr and dino. The report says at which step and parameter a target parts.
    With --curves, target and reference also train freely, and both curves are drawn: they part for rounding alone,
    so they are no part of the verdict.

    The profile full-size, too, runs tests of its own: the calls of published models and every two sizes up to the
    largest, of ms_deform_attn and ms_deform_attn_module, in every claimed dtype. It takes minutes to hours.

    \b
    Exit status
      0  it conforms; known deviations and warnings (SHOULD) are allowed
      1  it does not
      2  cannot tell: it does not load, a device is absent, nothing was
         exercised, or the suite itself failed
    Of several targets the worst counts, and 2 is worse than 1: it leaves one least sure.
    """
    import random

    from detr_conformance.reporting.selection import Selection
    from detr_conformance.running.checking import Outputs, check_targets

    if target is None and runner is None:
        raise click.UsageError("Missing argument 'TARGET', or --runner CMD in its place.")
    if target is not None and runner is not None:
        raise click.UsageError("--runner CMD stands in the place of TARGET; give one of them")
    if curves and runner is not None:
        raise click.UsageError("--curves draws a TARGET in Python, not a --runner")
    if curves and profile != "training":
        raise click.UsageError("--curves belongs to --profile training")
    if seed is None:
        seed = random.SystemRandom().randrange(1 << 31) if profile == "thorough" else 0
    asked = tuple(clause.id for name in clauses for clause in _in_force(name))
    selection = Selection(
        *(operation, profile, device, dtype, seed, jobs, cases_dir, replay),
        *(isolate, runner is not None, time_limit, memory_limit or 0.0),
        shapes=shapes,
        clauses=asked,
        calls=calls,
        exitfirst=exitfirst,
    )
    checked = str(target if runner is None else runner)
    raise SystemExit(check_targets(checked, selection, Outputs(json_file, junit_file, html_file, curves, coverage)))


def _in_force(name: str) -> list[Clause]:
    """The clause of that id, or those whose ids begin so."""
    from detr_conformance.cli.spec import clauses_named
    from detr_conformance.evidence.clauses import ClauseError, load_chapters

    try:
        return [clause for clause in clauses_named(load_chapters(), name.strip().upper()) if clause.level != "retired"]
    except ClauseError as error:
        raise CannotDo(str(error)) from error
