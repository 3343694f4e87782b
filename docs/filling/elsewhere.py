"""The table of implementations that are not torch's: what it took to plug them in, and their verdicts."""

from __future__ import annotations

import re
from collections import Counter

from filling.runs import COMMANDS, RUNNER
from filling.saved import ROOT
from filling.verdicts import reports, shortened

# The run, and the guide whose first example is all that is written to be judged so; a runner is a program of its own.
GLUE = {
    "numpy-core": "check-a-numpy-kernel",
    "jax-core": "check-a-jax-kernel",
    "jax-core-jitted": "check-a-jax-kernel",
    "onnxruntime": "check-an-onnx-model",
    "cpp-runner": None,
}


def elsewhere() -> str:
    """A line an implementation: command, lines of glue, and how its clauses came out."""
    lines = ["| implementation | command | glue | pass | deviation | warning | not asked | verdict |", "|---" * 8 + "|"]
    for run, guide in GLUE.items():
        command = RUNNER if guide is None else COMMANDS[run].typed
        for report in reports(run):
            by_verdict: dict[str, list[str]] = {}
            for clause, entry in report["clauses"].items():
                by_verdict.setdefault(entry["verdict"], []).append(clause)
            counts = Counter({verdict: len(several) for verdict, several in by_verdict.items()})
            told = [shortened(by_verdict.get(verdict, [])) for verdict in ("deviation", "warn")]
            glue = "a program" if guide is None else f"{lines_of_glue(guide)} lines"
            cells = [report["target"]["name"], f"`{command}`", glue, counts["pass"], *told, counts["not-exercised"]]
            lines.append("| " + " | ".join(map(str, [*cells, report["verdict"]])) + " |")
    return "\n".join(lines)


def lines_of_glue(guide: str) -> int:
    """Of the first Python example of a guide, without comments and empty lines."""
    text = (ROOT / "docs" / "guides" / f"{guide}.md").read_text(encoding="utf-8")
    match = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert match is not None
    return sum(bool(line.strip()) and not line.startswith("#") for line in match[1].splitlines())
