"""Every figure in the README is that of a saved run."""

from __future__ import annotations

import subprocess
import sys

from helpers.places import ROOT


def test_the_readme_shows_the_saved_runs() -> None:
    command = [sys.executable, str(ROOT / "docs" / "readme_runs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
