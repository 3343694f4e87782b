"""What of the suite was asked for, and how it is typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

TIME_LIMIT = 60.0  # seconds for a call in a process of its own


@dataclass(frozen=True)
class Selection:
    """What of the suite to run, and how: the options of `detr-spec check`."""

    operations: tuple[str, ...] = ()
    profile: str = "standard"
    device: str | None = None
    dtype: str | None = None
    seed: int = 0
    jobs: int = 1
    cases_dir: str = "detr-cases"
    replay: str | None = None
    isolate: bool = False
    runner: bool = False  # TARGET is the command that starts one
    time_limit: float = TIME_LIMIT
    memory_limit: float = 0.0  # GiB; 0: what the machine allows
    shapes: str = "any"  # or "few", for what is compiled anew for each
    clauses: tuple[str, ...] = ()  # none: all of the profile's
    calls: str | None = None  # a folder of recorded ones
    exitfirst: bool = False  # stop at the first failure

    def asks(self, clauses: Iterable[str]) -> bool:
        """Whether one of these clauses was asked for."""
        return not self.clauses or not set(self.clauses).isdisjoint(clauses)


def replay_command(target: str, case_file: str, selection: Selection) -> str:
    """What a user types to run one failing case again; a profile with tests of its own has to be named."""
    named = ["--profile", selection.profile] if selection.profile in ("full-size", "training") else []
    apart = ["--isolate"] if selection.isolate else []
    whose = ["--runner", target] if selection.runner else [target]
    return shlex.join(["detr-spec", "check", *whose, *named, *apart, "--replay", case_file])
