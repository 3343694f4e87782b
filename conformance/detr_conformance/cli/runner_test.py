"""`detr-spec runner-test`: does a program speak the protocol of runners?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from detr_reference.cli import CannotDo, need

if TYPE_CHECKING:
    from detr_conformance.running.runner_rules import Found

SHOWN = 300  # characters of each end of a message


@click.command(name="runner-test", short_help="Does a program speak the protocol of runners?")
@click.argument("command", metavar="CMD")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="What one message may take.",
)
@click.option(
    "--memory-limit",
    type=click.FloatRange(min=0.1),
    metavar="GIB",
    show_default="three quarters of the machine's",
    help="What the runner may allocate.",
)
def runner_test(command: str, time_limit: float, memory_limit: float | None) -> None:
    """Test the runner that CMD starts by the protocol itself, rule by rule.

    No number is compared with the reference: that is what `detr-spec check --runner CMD` does. The first operation
    that the runner names is called. CMD is parted into words as a shell does; no shell sees it.

    \b
    Exit status
      0  every rule holds
      1  one does not
      2  the runner does not start, or cannot be used
    """
    need("runner-test", "vectors", "jsonschema")
    from rich.text import Text

    from detr_conformance.isolation.process import Limits
    from detr_conformance.reporting.console import STYLES, report_console, visible
    from detr_conformance.running.placing import words_of
    from detr_conformance.running.runner_rules import tried
    from detr_conformance.target import TargetError

    console, broken = report_console(), 0
    try:
        words = words_of(command)
        for found in tried(words, Limits(time_limit, int((memory_limit or 0) * 2**30))):
            broken += found.verdict == "fail"
            shown = "FAIL" if found.verdict == "fail" else found.verdict.replace("-", " ")
            first = found.said.splitlines()[0] if found.said else ""
            verdict = (f"{shown:<15}", STYLES[found.verdict])
            console.print(Text.assemble(f"{found.rule:<38}", verdict, visible(first)), soft_wrap=True)
            for line in _more(found) if found.verdict == "fail" else ():
                console.print(visible(f"    {line}", "dim"), soft_wrap=True)
    except TargetError as error:
        raise CannotDo(str(error)) from error
    console.print(f"\nbroken rules: {broken}" if broken else "\nevery rule that was tried holds")
    raise SystemExit(int(broken > 0))


def _more(found: Found) -> list[str]:
    lines = found.said.splitlines()[1:]
    for what, message in (("sent", found.sent), ("got ", found.got)):
        if message is not None:
            lines.append(f"{what} {_shown(message)}")
    return lines


def _shown(message: dict[str, Any]) -> str:
    text = json.dumps(message)
    return text if len(text) <= 2 * SHOWN else f"{text[:SHOWN]} ... {text[-SHOWN:]}"
