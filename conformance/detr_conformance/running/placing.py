"""Where a target runs: in this process, or in one of its own."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from detr_conformance.reporting.selection import Selection
from detr_conformance.running.loaders import load_target
from detr_conformance.target import Target, TargetError


def load(name: str, selection: Selection) -> Target:
    """One target, by a name that `resolve_names` gave, or by the command that starts it.

    Raises:
        TargetError: it does not load.
    """
    if not selection.isolate and not selection.runner:
        return load_target(name)
    from detr_conformance.isolation.process import Limits
    from detr_conformance.isolation.remote import isolated  # both take torch, which a command may not need
    from detr_conformance.isolation.runners import started

    limits = Limits(selection.time_limit, int(selection.memory_limit * 2**30))
    return started(words_of(name), limits) if selection.runner else isolated(name, limits)


def words_of(command: str) -> list[str]:
    """The words of a command, as a shell would part them; no shell sees it.

    Raises:
        TargetError: there is no such program.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise TargetError(f"the command {command!r} cannot be read: {error}") from error
    if not words:
        raise TargetError("the command that starts the runner is empty")
    if shutil.which(words[0]) is None:
        there = Path(words[0])
        why = f"there is no program {words[0]!r}"
        if there.is_file() and not os.access(there, os.X_OK):
            why = f"{words[0]!r} may not be executed; chmod +x, or name the interpreter before it"
        elif there.is_file():
            why += f"; did you mean './{words[0]}'?"
        raise TargetError(f"the runner does not start: {why}")
    return words
