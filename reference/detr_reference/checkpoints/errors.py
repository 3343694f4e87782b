"""The one error of this package."""

from __future__ import annotations

from collections.abc import Sequence


class CheckpointError(ValueError):
    """A file that cannot be read as what it is said to be; the message says why, without a traceback's help."""

    @classmethod
    def of(cls, summary: str, faults: Sequence[str]) -> CheckpointError:
        """One error for all faults, each on a line of its own."""
        return cls("\n  ".join([f"{summary}:", *faults]))
