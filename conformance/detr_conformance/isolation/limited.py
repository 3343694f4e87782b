"""`python -m detr_conformance.isolation.limited BYTES COMMAND ...`: becomes the command, with so much memory."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def limit_memory(size: int) -> None:
    """A call that asks for more gets an error of its own, and the machine stays usable."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


if __name__ == "__main__":
    limit_memory(int(sys.argv[1]))
    os.environ.setdefault("MALLOC_PERTURB_", "1")  # glibc fills what it gives out, with numbers far from zero
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"{sys.argv[2]} cannot be started: {error.strerror}")
