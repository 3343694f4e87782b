"""Makes the README's runs again: saves each under docs/runs and puts its output between the README's markers.

python docs/readme_runs.py            run everything, then fill in the README
python docs/readme_runs.py --fill     fill in the README from the saved runs
python docs/readme_runs.py --check    compare the README with the saved runs (exit 1 if they differ)
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "docs" / "runs"
EXAMPLE = "docs/examples/grid_sample_kernel.py"

# name -> the command a reader types, and the exit code it must have
COMMANDS: dict[str, tuple[str, int]] = {
    "reference": ("detr-spec check reference --operation ms_deform_attn --json docs/runs/reference.json", 0),
    "my-kernel": (f"detr-spec check {EXAMPLE}:target --json docs/runs/my-kernel.json", 0),
    "my-broken-kernel": (f"detr-spec check {EXAMPLE}:broken --json docs/runs/my-broken-kernel.json", 1),
    "transformers": ("detr-spec check transformers --json docs/runs/transformers.json", 0),
}
MARKS = {"pass": "", "deviation": "D", "warn": "W", "fail": "**F**", "not-provided": "-", "not-exercised": "?"}
ROW = re.compile(r"^MS\w+-\d+ .*\b(pass|FAIL|warn)\b")


def run(name: str) -> None:
    command, expected = COMMANDS[name]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != expected:
        sys.exit(f"{command}\nended with {done.returncode}, expected {expected}\n{done.stdout}{done.stderr}")
    (RUNS / f"{name}.txt").write_text(f"$ {command}\n{done.stdout}", encoding="utf-8")


def lines_of(name: str) -> list[str]:
    return (RUNS / f"{name}.txt").read_text(encoding="utf-8").rstrip().splitlines()


def section(lines: list[str], clause: str) -> list[str]:
    """What the report says of one clause that failed."""
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{clause} ("))
    end = next(i for i in range(start + 1, len(lines)) if not lines[i] and re.match(r"MS\w+-\d+ \(", lines[i + 1]))
    return lines[start:end]


def fenced(*parts: list[str]) -> str:
    text = "\n...\n".join("\n".join(part) for part in parts)
    return f"```text\n{text}\n```"


def passing() -> str:
    lines = lines_of("my-kernel")
    rows = [i for i, line in enumerate(lines) if ROW.match(line)]
    warnings = [lines[i] for i in rows if " warn " in lines[i]]
    return fenced(lines[: rows[12]], warnings, lines[-1:])


def failing() -> str:
    lines = lines_of("my-broken-kernel")
    failures = [line for line in lines if ROW.match(line) and " FAIL " in line and "(MUST)" not in line]
    return fenced([*lines[:1], "", *failures], section(lines, "MSDA-15"), lines[-1:])


def transformers_table() -> str:
    """Clauses that not every implementation passes, a column an implementation."""
    reports = json.loads((RUNS / "transformers.json").read_text(encoding="utf-8"))["reports"]
    clauses = list(reports[0]["clauses"])
    shown = [c for c in clauses if any(r["clauses"][c]["verdict"] not in ("pass", "not-provided") for r in reports)]
    unclaimed = [c for c in clauses if all(r["clauses"][c]["verdict"] == "not-provided" for r in reports)]
    names = [report["target"]["name"].removeprefix("transformers-") for report in reports]
    lines = ["| clause | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for clause in shown:
        marks = [MARKS[report["clauses"][clause]["verdict"]] for report in reports]
        lines.append(f"| {clause} | " + " | ".join(marks) + " |")
    lines.append("| verdict | " + " | ".join(report["verdict"] for report in reports) + " |")
    rest = len(clauses) - len(shown) - len(unclaimed)
    lines += [
        "",
        f"The other {rest} clauses are passed wherever they are provided; {', '.join(unclaimed)} are not claimed.",
    ]
    return "\n".join(lines)


def kill_rates() -> str:
    found = json.loads((ROOT / "docs" / "kill-matrix.json").read_text(encoding="utf-8"))
    total, declared, naive = (found[key] for key in ("total", "rejected_by_declared_clause", "rejected_by_naive_check"))
    return (
        f"Of {total} mutants {declared} are rejected by the clause they declare; a naive check (initial weights, "
        f"H = W, locations in [0, 1), tolerance 1e-2) rejects {naive}."
    )


def filled(readme: str) -> str:
    """The README with every marked place replaced by what the saved runs say."""
    places = {
        "my-kernel": passing(),
        "my-broken-kernel": failing(),
        "reference": fenced(lines_of("reference")),
        "transformers-table": transformers_table(),
        "kill-rates": kill_rates(),
    }
    for name, text in places.items():
        pattern = re.compile(rf"(<!-- run: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(readme):
            sys.exit(f"README.md has no place marked {name!r}")
        readme = pattern.sub(lambda match, text=text: f"{match[1]}{text}\n{match[2]}", readme)
    return readme


def main() -> None:
    path = ROOT / "README.md"
    options = sys.argv[1:]
    if not options:
        RUNS.mkdir(parents=True, exist_ok=True)
        for name in COMMANDS:
            print(f"running {name} ...", flush=True)
            run(name)
    readme = path.read_text(encoding="utf-8")
    if "--check" not in options:
        path.write_text(filled(readme), encoding="utf-8")
    elif filled(readme) != readme:
        sys.exit("README.md differs from the saved runs; run `make readme`")


if __name__ == "__main__":
    main()
