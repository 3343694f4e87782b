"""The messages that the page on runners shows."""

from __future__ import annotations

import json
import re
from typing import Any

from helpers.places import ROOT

PAGE = (ROOT / "docs" / "guides" / "write-a-runner.md").read_text(encoding="utf-8")
EXAMPLES: list[dict[str, Any]] = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
