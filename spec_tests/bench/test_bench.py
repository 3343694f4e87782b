"""`detr-spec bench`: no speed without a check that passed, however the suite is started; a line for every mistake."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from detr_bench import command, gate, process
from detr_bench.cli import bench
from detr_bench.gate import Unit, Verdict, verdict_of
from detr_bench.plan import Asked
from detr_bench.process import Measured
from detr_bench.session import NoSpeed, Session
from detr_conformance.reporting.json_file import read_json
from detr_conformance.reporting.selection import Selection
from detr_conformance.running import checking
from helpers import commands
from helpers.bench_infos import info
from helpers.places import EXAMPLES

EXAMPLE = EXAMPLES / "grid_sample_kernel.py"
UNIT = Unit("mine.py:target", "ms_deform_attn", "cpu", "float32")
QUICK = ("--workload", "rt-detr-decoder-640", "--direction", "forward", "--seconds", "0.05", "--profile", "smoke")

TARGET = """
from detr_conformance import Target
from detr_reference.deformable_attention.core import ms_deform_attn
target = Target(name="mine", provides={"ms_deform_attn": ms_deform_attn}, features=("backward",))
forward_only = Target(name="forward-only", provides={"ms_deform_attn": ms_deform_attn}, features=())
far = Target(name="far", provides={"ms_deform_attn": ms_deform_attn}, devices=("cuda:99",))
other = Target(name="other", provides={"mlp": ms_deform_attn})
"""


def run(*arguments: str) -> Result:
    """One call of `detr-spec bench`."""
    return commands.run("bench", *arguments)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(TARGET)
    return tmp_path


def report(verdict: str, **clauses: str) -> dict[str, Any]:
    told = {name.replace("_", "-"): {"verdict": each} for name, each in clauses.items()}
    times = {"seconds": 1.0, "tests": {}}
    return {"target": {"name": "mine"}, "verdict": verdict, "message": "why", "clauses": told, "times": times}


PASSES, FAILS = report("pass", MSDA_1="pass"), report("fail", MSDA_1="pass", MSDA_7="fail", MSDA_12="fail")


@pytest.fixture
def check_says(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], list[Verdict]]:
    """The check returns this report; what is measured then is written down and takes no time."""
    measured: list[Verdict] = []

    def measure(verdict: Verdict, asked: Asked, suite: str, show: Callable[[Any], None]) -> Measured:
        measured.append(verdict)
        section: dict[str, Any] = {"checks": [verdict.as_dict()], "ceilings": [], "growth": []}
        entry = {"extra_info": info([0.1], [0.4], direction=asked.directions[0])}
        return Measured({"machine_info": {}, "benchmarks": [entry], "detr_spec": section})

    def says(found: dict[str, Any]) -> list[Verdict]:
        monkeypatch.setattr(command, "check", lambda unit, profile, show: found)
        return measured

    monkeypatch.setattr(command, "measure", measure)
    return says


# -- the gate -------------------------------------------------------------------------------------------------


def test_a_target_that_passes_is_measured(check_says: Callable[..., Any], here: Path) -> None:
    measured = check_says(PASSES)
    result = run("mine.py:target", "--json", "run.json")
    assert result.exit_code == 0
    assert [verdict.unit for verdict in measured] == [UNIT]
    assert "4.00x faster" in result.output
    assert "PASS" in result.output
    assert len(json.loads((here / "run.json").read_text())["benchmarks"]) == 1


def test_the_json_is_compressed_by_its_name(check_says: Callable[..., Any], here: Path) -> None:
    check_says(PASSES)
    assert run("mine.py:target", "--json", "run.json.gz").exit_code == 0
    assert len(read_json(here / "run.json.gz")["benchmarks"]) == 1


def test_a_target_that_fails_is_not_measured_and_the_table_names_its_clauses(
    check_says: Callable[..., Any], here: Path
) -> None:
    measured = check_says(FAILS)
    result = run("mine.py:target", "--json", "run.json", "--picture", "run.png")
    assert result.exit_code == 1
    assert measured == []
    assert "no speed: fails MSDA-7, MSDA-12" in result.output
    assert "faster" not in result.output
    assert not (here / "run.png").exists()
    document = json.loads((here / "run.json").read_text())
    assert document["benchmarks"] == []
    assert document["detr_spec"]["checks"][0]["verdict"] == "fail"
    assert "fails MSDA-7" in document["detr_spec"]["no_speed"][0]["message"]


def test_a_target_of_which_the_check_cannot_tell_is_not_measured(check_says: Callable[..., Any]) -> None:
    measured = check_says(report("error"))
    result = run("mine.py:target")
    assert result.exit_code == 2
    assert measured == []
    assert "no speed: cannot tell whether it conforms: why" in result.output


def test_one_that_fails_hides_none_that_passes_and_the_worst_counts(
    check_says: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = check_says(PASSES)
    monkeypatch.setattr(command, "check", lambda unit, profile, show: PASSES if ":target" in unit.target else FAILS)
    result = run("mine.py:forward_only", "mine.py:target")
    assert result.exit_code == 1
    assert [verdict.unit.target for verdict in measured] == ["mine.py:target"]
    assert "4.00x faster" in result.output
    assert "no speed: fails" in result.output


def test_every_dtype_needs_a_check_of_its_own(check_says: Callable[..., Any]) -> None:
    measured = check_says(PASSES)
    run("mine.py:target", "--dtype", "float32", "--dtype", "float64")
    assert [verdict.unit.dtype for verdict in measured] == ["float32", "float64"]


def test_known_deviations_are_told() -> None:
    deviating = report("pass", MSDA_1="deviation", MSDA_2="deviation", MSDA_3="pass")
    assert verdict_of(UNIT, "smoke", deviating).told == "pass, 2 known deviations"


def test_many_failed_clauses_are_counted() -> None:
    failing = report("fail", **{f"MSDA_{number}": "fail" for number in range(1, 8)})
    assert verdict_of(UNIT, "smoke", failing).told == "no speed: fails MSDA-1, MSDA-2, MSDA-3, MSDA-4 and 3 more"


def test_the_suite_itself_refuses_and_asks_the_check_if_nobody_did(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Unit] = []

    def check(unit: Unit, profile: str) -> dict[str, Any]:
        asked.append(unit)
        return FAILS

    monkeypatch.setattr("detr_bench.session.check", check)
    session = Session({}, Asked())
    for _ in range(2):
        with pytest.raises(NoSpeed, match="fails MSDA-7"):
            session.require_pass(UNIT)
    assert asked == [UNIT]


def test_a_verdict_about_something_else_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detr_bench.session.check", lambda unit, profile: FAILS)
    double = Unit(UNIT.target, UNIT.operation, UNIT.device, "float64")
    session = Session({}, Asked(), {double: Verdict(double, "standard", "pass", "pass")})
    assert session.require_pass(double).passed
    with pytest.raises(NoSpeed):
        session.require_pass(UNIT)


def test_the_check_is_of_the_same_operation_device_and_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Selection] = []

    def run_suite(target: str, selection: Selection) -> Any:
        asked.append(selection)
        yield {"event": "error", "message": "not today"}

    monkeypatch.setattr(checking, "run_suite", run_suite)
    found = gate.check(Unit("t", "dino", "cuda:1", "float64"), "thorough")
    assert found["verdict"] == "error"
    (selection,) = asked
    assert (selection.operations, selection.device, selection.dtype) == (("dino",), "cuda:1", "float64")
    assert selection.profile == "thorough"


# -- real runs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A right and a wrong implementation, checked and measured for once."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "kernel.py").write_text(EXAMPLE.read_text())
    before = Path.cwd()
    os.chdir(folder)
    try:
        files = ("--json", str(folder / "run.json"), "--picture", str(folder / "run.png"))
        return run("kernel.py:target", "kernel.py:broken", *QUICK, "--threads", "1", *files), folder
    finally:
        os.chdir(before)


def test_the_right_one_has_a_speed_and_the_wrong_one_none(real: tuple[Result, Path]) -> None:
    result, folder = real
    assert result.exit_code == 1, result.output
    assert "PASS  my-kernel" in result.output
    row = next(line for line in result.output.splitlines() if line.startswith("rt-detr-decoder-640"))
    assert row.split()[1] == "forward"
    assert row.rstrip().endswith("pass")
    assert "my-broken-kernel  no speed: fails MSDA-" in result.output
    assert (folder / "run.png").read_bytes().startswith(b"\x89PNG")


def test_the_json_is_pytest_benchmarks_with_a_section_of_ours(real: tuple[Result, Path]) -> None:
    _, folder = real
    text = (folder / "run.json").read_text()
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    (entry,) = document["benchmarks"]
    found = entry["extra_info"]
    assert entry["group"] == "ms_deform_attn rt-detr-decoder-640 forward float32 cpu"
    assert len(entry["stats"]["data"]) == len(found["reference_seconds"]["data"]) >= 5
    assert found["own_seconds"]["median"] == pytest.approx(entry["stats"]["median"])
    assert (found["check"], found["threads"]) == ("pass", 1)
    assert found["difference"] < 1e-5
    assert {"torch", "threads", "cpu"} <= set(document["machine_info"])
    assert platform.node() not in text
    assert [each["verdict"] for each in document["detr_spec"]["checks"]] == ["pass", "fail"]
    if sys.platform == "linux":
        assert found["own_peak_bytes"] > 300 * 256 * 4  # the output
    compare = [sys.executable, "-m", "pytest_benchmark", "compare", str(folder / "run.json")]
    done = subprocess.run(compare, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "rt-detr-decoder-640" in done.stdout


def test_in_a_users_own_pytest_run_the_wrong_one_has_no_speed_either(here: Path) -> None:
    (here / "kernel.py").write_text(EXAMPLE.read_text())
    options = [f"--detr-bench-{name}" for name in ("target=kernel.py:broken", "workload=rt-detr-decoder-640")]
    options += ["--detr-bench-profile=smoke", "--benchmark-json=run.json"]
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "pytest_benchmark.plugin"]
    line += ["-p", "detr_bench.plugin", "--pyargs", "detr_bench.suite.test_speed", "-q", *options]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1, done.stdout
    assert "no speed: fails MSDA-" in done.stdout
    assert "2 failed" in done.stdout
    assert not (here / "run.json").exists()


# -- the measuring process ------------------------------------------------------------------------------------


def measured_by(script: str, monkeypatch: pytest.MonkeyPatch) -> Measured:
    """What is made of a process that runs this script, with `emit` for its events."""
    prelude = (
        "import json, os, sys\n"
        "def emit(event, **fields):\n"
        "    with open(sys.argv[1] + '/events.jsonl', 'a') as stream:\n"
        "        stream.write(json.dumps({'event': event, **fields}) + '\\n')\n"
    )

    def line(verdict: Verdict, asked: Asked, suite: str, folder: Path) -> list[str]:
        return [sys.executable, "-c", prelude + script, str(folder)]

    monkeypatch.setattr(process, "command", line)
    return process.measure(Verdict(UNIT, "smoke", "pass", "pass"), Asked(), "test_speed.py", lambda event: None)


def test_a_process_that_dies_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "emit('running', test='test_speed[x]', clauses=[]); os.kill(os.getpid(), 11)"
    found = measured_by(script, monkeypatch)
    assert found.document is None
    assert found.problem == "the measuring process ended with SIGSEGV in test_speed[x]"


def test_a_figure_that_could_not_be_had_is_kept_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "emit('refused', wrong=True, message='why', workload='w'); emit('finish', exit=1)"
    found = measured_by(script, monkeypatch)
    assert [event["message"] for event in found.refused] == ["why"]
    assert found.problem is None


def test_a_suite_that_failed_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured_by("print('INTERNAL ERROR'); emit('finish', exit=3)", monkeypatch)
    assert found.problem == "the measuring process ended with status 3: INTERNAL ERROR"


@pytest.mark.parametrize(("wrong", "status"), [(True, 1), (False, 2)])
def test_a_wrong_result_at_the_measured_size_counts_as_a_failure_and_an_error_as_not_knowing(
    wrong: bool, status: int, check_says: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_says(PASSES)
    event = {"event": "refused", "wrong": wrong, "message": "why", "workload": "w", "direction": "both"}
    monkeypatch.setattr(command, "measure", lambda *_: Measured(refused=[{**event, "dtype": "float32"}]))
    result = run("mine.py:target")
    assert result.exit_code == status
    assert "mine w both float32  no speed: why" in result.output


def test_the_process_gets_every_option_and_none_of_the_users_pytest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--nonsense")
    asked = Asked((), ("dino-decoder",), ("backward",), threads=3, seconds=0.5)
    line = process.command(Verdict(UNIT, "thorough", "pass", "pass"), asked, "test_growth.py", tmp_path)
    for option in (
        "--detr-bench-target=mine.py:target",
        "--detr-bench-operation=ms_deform_attn",
        "--detr-bench-dtype=float32",
        "--detr-bench-workload=dino-decoder",
        "--detr-bench-direction=backward",
        "--detr-bench-threads=3",
        "--detr-bench-seconds=0.5",
        "--detr-bench-profile=thorough",
        "--noconftest",
    ):
        assert option in line
    assert any(part.endswith("test_growth.py") for part in line)
    environment = process.environment(asked)
    assert "PYTEST_ADDOPTS" not in environment
    assert environment["OMP_NUM_THREADS"] == "3"


# -- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("no-such-target",), "no target 'no-such-target'"),
        (("mine.py:target", "--workload", "huge"), "'huge' is none"),
        (("mine.py:target", "--operation", "mlp"), "'mlp' is not one of"),
        (("mine.py:target", "--direction", "sideways"), "'sideways' is not one of"),
        (("mine.py:other",), "it provides none of"),
        (("mine.py:target", "--operation", "dino"), "it provides none of dino"),
        (("torch-M", "--operation", "dino"), "no target of torch-M provides"),
        (("mine.py:far",), "absent on this machine"),
        (("mine.py:forward_only", "--direction", "both"), "nothing of what was asked for applies"),
        (("mine.py:target", "--json", "no/such/folder.json"), "there is no folder"),
        (("mine.py:target", "--growth", "--workload", "dino-decoder"), "leave out --workload"),
        (("mine.py:target", "--growth", "--operation", "dino"), "is about ms_deform_attn"),
        ((), "Missing argument"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_checked(
    arguments: tuple[str, ...], told: str, check_says: Callable[..., Any]
) -> None:
    measured = check_says(PASSES)
    result = run(*arguments)
    assert result.exit_code == 2
    assert told in result.output
    assert measured == []


def test_a_shell_is_offered_the_workloads_of_the_operations_asked_for() -> None:
    context = click.Context(bench)
    option = next(each for each in bench.params if each.name == "workload")
    context.params = {"operation": ("detr",)}
    assert [item.value for item in option.type.shell_complete(context, option, "8")] == ["800x1066", "800x1333"]
    context.params = {}
    assert "dino-encoder" in [item.value for item in option.type.shell_complete(context, option, "dino-e")]


def test_the_help_lists_every_workload_without_importing_anything_heavy() -> None:
    script = (
        "import sys; from detr_bench.cli import bench; from detr_bench.workloads import TABLE\n"
        "text = bench.get_help(__import__('click').Context(bench))\n"
        "assert all(name in text for names in TABLE.values() for name in names)\n"
        "assert not {'torch', 'numpy', 'rich', 'pytest', 'matplotlib'} & set(sys.modules), 'heavy'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
