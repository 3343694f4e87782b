"""`python -m helpers.fuzzing ROUNDS`, in spec_tests: so many damaged inputs of each kind, a line of figures a kind."""

from __future__ import annotations

import resource
import sys
import time

import click

from helpers.fuzzing.readers import readers
from helpers.fuzzing.trying import fuzz

MEMORY = 1 << 30  # bytes by which the whole may grow


def grown() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@click.command()
@click.argument("rounds", type=int)
@click.option("--seed", type=int, default=0)
def main(rounds: int, seed: int) -> None:
    """Try every reader on ROUNDS damaged inputs."""
    bad = False
    for reader in readers():
        before, start = grown(), time.monotonic()
        with click.progressbar(length=rounds, label=reader.name, file=sys.stderr) as bar:
            found = fuzz(reader, rounds, seed, lambda _, bar=bar: bar.update(1))
        counts = ", ".join(f"{count} {what}" for what, count in found.counts.most_common())
        memory = grown() - before
        click.echo(f"{reader.name}: {counts}; {time.monotonic() - start:.0f} s, {memory / 2**20:.0f} MiB more")
        bad = bad or bool(found.wrong) or memory > MEMORY
    raise SystemExit(int(bad))


if __name__ == "__main__":
    main()
