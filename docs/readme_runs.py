"""Makes the README's runs again: saves each under docs/runs and puts its output between the README's markers.

python docs/readme_runs.py            run everything, then fill in the README
python docs/readme_runs.py --check    only compare the README with the saved runs (exit 1 if they differ)
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = Path("docs/runs")

# name -> the command a reader types, and the exit code it must have
COMMANDS: dict[str, tuple[str, int]] = {
    "reference": ("detr-spec check reference --operation ms_deform_attn --json docs/runs/reference.json", 0),
    "my-kernel": (
        "detr-spec check docs/examples/grid_sample_kernel.py:target --json docs/runs/my-kernel.json",
        0,
    ),
    "my-broken-kernel": (
        "detr-spec check docs/examples/grid_sample_kernel.py:broken --json docs/runs/my-broken-kernel.json",
        1,
    ),
    "transformers": ("detr-spec check transformers --json docs/runs/transformers.json", 0),
}
MARKS = {"pass": "", "deviation": "D", "warn": "W", "fail": "**F**", "not-provided": "-", "not-exercised": "?"}


def run(name: str) -> None:
    command, expected = COMMANDS[name]
    done = subprocess.run(
        command.split(), cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    )
    if done.returncode != expected:
        sys.exit(f"{command}\nended with {done.returncode}, expected {expected}\n{done.stdout}{done.stderr}")
    (ROOT / RUNS / f"{name}.txt").write_text(f"$ {command}\n{done.stdout}", encoding="utf-8")


def transcript(name: str) -> str:
    text = (ROOT / RUNS / f"{name}.txt").read_text(encoding="utf-8").rstrip()
    return f"```text\n{text}\n```"


def transformers_table() -> str:
    """Clauses that not every implementation passes, a column an implementation."""
    reports = json.loads((ROOT / RUNS / "transformers.json").read_text(encoding="utf-8"))["reports"]
    clauses = list(reports[0]["clauses"])
    shown = [c for c in clauses if any(r["clauses"][c]["verdict"] != "pass" for r in reports)]
    names = [report["target"]["name"].removeprefix("transformers-") for report in reports]
    lines = ["| clause | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for clause in shown:
        marks = [MARKS[report["clauses"][clause]["verdict"]] for report in reports]
        lines.append(f"| {clause} | " + " | ".join(marks) + " |")
    lines.append("| verdict | " + " | ".join(report["verdict"] for report in reports) + " |")
    passed = len(clauses) - len(shown)
    return "\n".join([*lines, "", f"All {passed} clauses that are not listed are passed by every implementation."])


def filled(readme: str) -> str:
    """The README with every marked place replaced by what the saved runs say."""
    places = {name: transcript(name) for name in COMMANDS if name != "transformers"}
    places["transformers-table"] = transformers_table()
    for name, text in places.items():
        pattern = re.compile(rf"(<!-- run: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        readme = pattern.sub(lambda match, text=text: f"{match[1]}{text}\n{match[2]}", readme)
    return readme


def main() -> None:
    readme = ROOT / "README.md"
    if "--check" not in sys.argv[1:]:
        (ROOT / RUNS).mkdir(parents=True, exist_ok=True)
        for name in COMMANDS:
            print(f"running {name} ...", flush=True)
            run(name)
        readme.write_text(filled(readme.read_text(encoding="utf-8")), encoding="utf-8")
    elif filled(readme.read_text(encoding="utf-8")) != readme.read_text(encoding="utf-8"):
        sys.exit("README.md differs from the saved runs; run `make readme`")


if __name__ == "__main__":
    main()
