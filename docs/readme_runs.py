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
from typing import Any

from readme_speed import BENCHES, growth, models, speeds, suite_times
from readme_training import ROOT, RUNS, compared, overfit, projected, recipes, run_smoke, saved, smoke

from detr_conformance.evidence.catalogue import covering_tests, mutants
from detr_conformance.evidence.clauses import load_chapters, load_clauses
from detr_conformance.operations import OPERATIONS

EXAMPLE = "docs/examples/grid_sample_kernel.py"
PORT = "docs/examples/ported_dino.py"

# What detectors are made of (chapters 1 to 9), and what is made of it (from chapter 11 on).
BLOCKS = [name for name, operation in OPERATIONS.items() if operation.chapters[0] < "10"]
DETECTORS = [name for name in OPERATIONS if name not in BLOCKS]

# name -> the command a reader types, and the exit code it must have
COMMANDS: dict[str, tuple[str, int]] = {
    "reference": ("detr-spec check reference --jobs 2 --json docs/runs/reference.json", 0),
    "reference-one-process": ("detr-spec check reference --json docs/runs/reference-one-process.json", 0),
    **{name: (command, 0) for name, command in BENCHES.items()},
    "my-kernel": (f"detr-spec check {EXAMPLE}:target --json docs/runs/my-kernel.json", 0),
    "my-broken-kernel": (f"detr-spec check {EXAMPLE}:broken --json docs/runs/my-broken-kernel.json", 1),
    "ported-dino": (f"detr-spec check {PORT}:target --operation dino --json docs/runs/ported-dino.json", 1),
    "torch": ("detr-spec check torch --json docs/runs/torch.json", 0),
    "transformers": (
        "detr-spec check transformers --jobs 2"
        + "".join(f" --operation {operation}" for operation in BLOCKS)
        + " --json docs/runs/transformers.json",
        0,
    ),
    "transformers-detectors": (
        "detr-spec check transformers --jobs 2"
        + "".join(f" --operation {operation}" for operation in DETECTORS)
        + " --json docs/runs/transformers-detectors.json",
        0,
    ),
    "training-check": (
        f"detr-spec check {EXAMPLE}:target --profile training --json docs/runs/training-check.json",
        0,
    ),
    "reference-compiled": ("detr-spec check reference-compiled --json docs/runs/reference-compiled.json", 0),
}
REAL = ("torch", "transformers", "reference-compiled", "transformers-detectors")
TABLES = (*REAL, *BENCHES, "reference-one-process")  # of these the README shows tables, drawn from the JSON
ROW = re.compile(r"^[A-Z]+-\d+ .*\b(pass|FAIL|warn)\b")


def run(name: str) -> None:
    command, expected = COMMANDS[name]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != expected:
        sys.exit(f"{command}\nended with {done.returncode}, expected {expected}\n{done.stdout}{done.stderr}")
    if name not in TABLES:
        (RUNS / f"{name}.txt").write_text(f"$ {command}\n{done.stdout}", encoding="utf-8")


def lines_of(name: str) -> list[str]:
    return (RUNS / f"{name}.txt").read_text(encoding="utf-8").rstrip().splitlines()


def section(lines: list[str], clause: str) -> list[str]:
    """What the report says of one clause that failed."""
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{clause} ("))
    end = next(i for i in range(start + 1, len(lines)) if not lines[i] and re.match(r"[A-Z]+-\d+ \(", lines[i + 1]))
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


def parted() -> str:
    """What a report says of a whole model: the numbers, and the first stage that diverges."""
    lines = lines_of("ported-dino")
    return fenced(lines[:1], section(lines, "BLK-1"), lines[-1:])


def sizes() -> str:
    """Parameters, time and memory of the published sizes."""
    found = saved("full-size")
    lines = ["| one image of 800 x 1333 on the CPU | parameters | forward | backward | peak memory |", "|---" * 5 + "|"]
    for run in found["runs"]:
        seconds = run["seconds"]
        forward, backward = (f"{seconds[k]:.0f} s" if k in seconds else "" for k in ("forward", "backward"))
        peak = f"{run['peak_mib'] / 1024:.1f} GiB"
        lines.append(f"| {run['name']} | {run['parameters']:,} | {forward} | {backward} | {peak} |")
    machine = found["environment"]
    lines += ["", f"float32, torch {machine['torch']}, {machine['threads']} threads: `python docs/full_size.py`."]
    return "\n".join(lines)


def reports(*runs: str) -> list[dict[str, Any]]:
    """The saved reports of these runs."""
    found = []
    for name in runs:
        report = saved(name)
        found += report.get("reports", [report])
    return found


def shortened(clauses: list[str]) -> str:
    """MSDA-1, MSDA-3, MHA-2 as "MSDA-1, 3; MHA-2"."""
    numbers: dict[str, list[str]] = {}
    for clause in clauses:
        prefix, _, number = clause.rpartition("-")
        numbers.setdefault(prefix, []).append(number)
    return "; ".join(f"{prefix}-{', '.join(several)}" for prefix, several in numbers.items())


def targets_table(about: list[str], *names: str) -> str:
    """A line an implementation: what it provides of these operations and where it differs."""
    lines = ["| target | operations | passes | declared deviations | warnings | verdict |", "|---" * 6 + "|"]
    for report in reports(*names):
        by_verdict: dict[str, list[str]] = {}
        for clause, entry in report["clauses"].items():
            by_verdict.setdefault(entry["verdict"], []).append(clause)
        operations = ", ".join(f"`{operation}`" for operation in report["target"]["provides"] if operation in about)
        deviations, warnings = (shortened(by_verdict.get(verdict, [])) for verdict in ("deviation", "warn"))
        passed = len(by_verdict.get("pass", []))
        name, verdict = report["target"]["name"], report["verdict"]
        lines.append(f"| {name} | {operations} | {passed} | {deviations} | {warnings} | {verdict} |")
    return "\n".join(lines)


def causes_table() -> str:
    """Each declared deviation once: the clause, its kind and cause, and who has it."""
    having: dict[tuple[str, str, str], list[str]] = {}
    for report in reports(*REAL):
        for clause, entry in report["clauses"].items():
            if known := entry["deviation"]:
                reason = re.sub(r" \([\w/.]+\.py:[\d, -]+\)$", "", known["reason"])
                having.setdefault((clause, known["kind"], reason), []).append(report["target"]["name"])
    lines = ["| clause | kind | cause | targets |", "|---" * 4 + "|"]
    clauses = load_clauses()
    order = list(clauses)
    for (clause, kind, reason), names in sorted(having.items(), key=lambda item: order.index(item[0][0])):
        short = [name.removeprefix("transformers-") for name in names]
        lines.append(f"| {clause} {clauses[clause].short} | {kind} | {reason} | {', '.join(short)} |")
    return "\n".join(lines)


def chapters_table() -> str:
    """What there is: clauses, tests and mutants of each chapter."""
    tests, wrong = covering_tests(), mutants()
    lines = ["| chapter | clauses | tests | mutants |", "|---" * 4 + "|"]
    for chapter in load_chapters():
        if not chapter.clauses:
            continue
        ids = {clause.id for clause in chapter.clauses}
        link = f"[{chapter.title}](reference/detr_reference/spec/{chapter.file})"
        count = len({(test.file, test.test) for test in tests if test.clause in ids})
        lines.append(f"| {link} | {len(ids)} | {count} | {sum(mutant.clause in ids for mutant in wrong)} |")
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
        "ported-dino": parted(),
        "sizes": sizes(),
        "reference": fenced(lines_of("reference")),
        "targets": targets_table(BLOCKS, "torch", "transformers", "reference-compiled"),
        "detectors": targets_table(DETECTORS, "transformers-detectors"),
        "causes": causes_table(),
        "chapters": chapters_table(),
        "kill-rates": kill_rates(),
        "smoke": smoke(),
        "recipes": recipes(),
        "dry-run": projected(),
        "overfit": overfit(),
        "small-comparison": compared(),
        "training-check": fenced(lines_of("training-check")),
        "bench": speeds(),
        "bench-models": models(),
        "bench-growth": growth(),
        "suite-times": suite_times(),
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
        print("running smoke ...", flush=True)
        run_smoke()
    readme = path.read_text(encoding="utf-8")
    if "--check" not in options:
        path.write_text(filled(readme), encoding="utf-8")
    elif filled(readme) != readme:
        sys.exit("README.md differs from the saved runs; run `make readme`")


if __name__ == "__main__":
    main()
