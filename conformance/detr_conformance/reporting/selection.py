"""What of the suite was asked for, and how it is typed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


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


def replay_command(target: str, case_file: str, profile: str = "standard") -> str:
    """What a user types to run one failing case again; a profile with tests of its own has to be named."""
    named = ["--profile", profile] if profile in ("full-size", "training") else []
    return shlex.join(["detr-spec", "check", target, *named, "--replay", case_file])
