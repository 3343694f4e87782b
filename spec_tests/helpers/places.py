"""Where the project's own files lie."""

from __future__ import annotations

from pathlib import Path

import detr_reference

HELPERS = Path(__file__).resolve().parent
ROOT = HELPERS.parents[1]
RUNS = ROOT / "docs" / "runs"
EXAMPLES = ROOT / "docs" / "examples"
CHAPTERS = Path(detr_reference.__file__).parent / "spec"
SHARED_DATA = ROOT.parent / "shared" / "data"
