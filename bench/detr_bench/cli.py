"""`detr-spec bench`: how fast is an implementation beside the reference?"""

from __future__ import annotations

import textwrap

import click
from click.shell_completion import CompletionItem

from detr_bench.workloads import DIRECTIONS, TABLE, find
from detr_conformance.cli.completion import TargetName
from detr_conformance.target import DTYPES

PROFILES = ("smoke", "standard", "thorough")


class WorkloadName(click.ParamType):
    """The name of a workload of any operation, or an image size."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not any(find(operation, value) for operation in TABLE):
            self.fail(f"{value!r} is none; `detr-spec bench --help` lists them.", param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        asked = ctx.params.get("operation") or TABLE
        names = dict.fromkeys(name for operation in asked for name in TABLE[operation])
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _listed() -> str:
    """The workloads of each operation, for the help text."""
    lines = [f"{operation}\n      " + "\n      ".join(_wrapped(list(names))) for operation, names in TABLE.items()]
    return "\n  ".join(lines)


def _wrapped(names: list[str], width: int = 84) -> list[str]:
    return [row.rstrip(",") for row in textwrap.wrap(", ".join(names), width, break_on_hyphens=False)]


EPILOG = f"\b\nWorkloads of each operation\n  {_listed()}"


@click.command(short_help="How fast is an implementation beside the reference?", epilog=EPILOG)
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True, type=TargetName())
@click.option(
    "--operation",
    multiple=True,
    type=click.Choice(list(TABLE)),
    help="Measure this; repeatable. By default the first of the list below that the target provides.",
)
@click.option(
    "--workload",
    multiple=True,
    type=WorkloadName(),
    help="Measure at these sizes; repeatable. By default a few published ones that fit a small machine. A whole model, "
    "or a core inside one, also runs at any image size: 480x640, dino-480x640.",
)
@click.option(
    "--direction",
    multiple=True,
    type=click.Choice(DIRECTIONS),
    show_default="forward and both",
    help="What is timed; repeatable. forward: without gradients; backward: alone; both: the two together. "
    "Forward is all that is timed of a target without the feature backward.",
)
@click.option("--device", help="Measure here, such as cuda. By default the first claimed device that is present.")
@click.option(
    "--dtype", multiple=True, type=click.Choice(DTYPES), show_default="float32", help="Measure in this; repeatable."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a CPU. By default torch's own choice.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.01),
    default=3.0,
    show_default=True,
    help="About how long target and reference take turns for each figure; five rounds at least.",
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="standard",
    show_default=True,
    help="How much the check tries that has to pass first.",
)
@click.option(
    "--growth",
    is_flag=True,
    help="Measure how the cost of ms_deform_attn grows with each of its sizes instead: fitted exponents.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(),
    metavar="FILE",
    help="Write pytest-benchmark's JSON; compressed if FILE ends in .gz.",
)
@click.option("--picture", type=click.Path(dir_okay=False), metavar="FILE", help="Draw the figures into this PNG.")
def bench(
    targets: tuple[str, ...],
    operation: tuple[str, ...],
    workload: tuple[str, ...],
    direction: tuple[str, ...],
    device: str | None,
    dtype: tuple[str, ...],
    threads: int | None,
    seconds: float,
    profile: str,
    growth: bool,
    json_file: str | None,
    picture: str | None,
) -> None:
    """Measure each TARGET beside the reference: both take turns in one process, and the figure is their ratio.

    TARGET is named as in `detr-spec check`. A speed is told of a target alone that has passed the check of the same
    operation, on the same device and in the same dtype, in the same run, and whose results in the timed rounds, each
    with new contents, are the reference's; of any other there is none, nor a figure above what this machine can do.
    Beside the time stands the most memory that a call needs, and for the sampling core how much of the machine's own
    measured copying and multiplying it reaches.

    The JSON file is one that `pytest-benchmark compare` reads; one whose name ends in .gz, once it is unpacked. In your
    own test run the same suite is

    \b
      pytest --pyargs detr_bench.suite.test_speed --detr-bench-target TARGET

    \b
    Exit status
      0  everything asked for was measured
      1  there is no speed, because the target does not conform, or its timed
         results or times cannot be right
      2  cannot tell: it does not load, a device is absent, its check could
         not decide, or a measurement failed
    """
    from detr_bench.command import bench_targets
    from detr_bench.plan import Asked

    if growth and workload:
        raise click.UsageError("--growth has sizes of its own: leave out --workload")
    if growth and set(operation) - {"ms_deform_attn"}:
        raise click.UsageError("--growth is about ms_deform_attn")
    asked = Asked(
        operations=operation or (("ms_deform_attn",) if growth else ()),
        workloads=workload,
        directions=direction or Asked.directions,
        device=device,
        dtypes=dtype or Asked.dtypes,
        threads=threads,
        seconds=seconds,
        profile=profile,
    )
    raise SystemExit(bench_targets(targets, asked, growth, json_file, picture))
