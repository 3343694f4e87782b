"""The command line: exit statuses, one line for every mistake, and a suite process that may die in any way.

The suite's process is played by a small script, which writes the events that a test asks for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from detr_conformance.reporting.selection import Selection, replay_command
from detr_conformance.running import loaders, runner
from detr_conformance.running.checking import _asked_for
from detr_conformance.running.loaders import resolve_names
from detr_conformance.running.runner import suite_command, suite_environment
from detr_reference import cli
from helpers.commands import run

PRELUDE = """
import json, os, signal, sys, time
def emit(event, **fields):
    with open(sys.argv[1], "a") as stream:
        stream.write(json.dumps({"event": event, **fields}) + "\\n")
def start(**info):
    claims = {"provides": ["ms_deform_attn"], "dtypes": ["float32"], "devices": ["cpu"], **info}
    emit("start", target={"name": "mine", "version": "1.0"}, environment={"seed": 0}, target_info=claims)
def running(test="test_x"):
    emit("running", test=test, clauses=["MSDA-2"])
def result(outcome="pass", **fields):
    emit("result", test="test_x", clauses=["MSDA-2"], operation="ms_deform_attn", device="cpu", dtype="float32",
         outcome=outcome, worst_error_ratio=0.5, mismatches=None, message="wrong" if outcome == "fail" else None,
         failure=None, case_file=None, seconds=0.1, **fields)
def finish(exit=0):
    emit("finish", exit=exit, seconds=0.1)
"""

Check = Callable[..., Result]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    return tmp_path


@pytest.fixture
def check(here: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Runs `detr-spec check` with a suite process that does what the script says."""

    def check(script: str, *options: str, target: str = "mine.py:target") -> Result:
        fake = here / "fake_suite.py"
        fake.write_text(PRELUDE + textwrap.dedent(script))
        monkeypatch.setattr(
            runner,
            "suite_command",
            lambda target, _, events, done: [sys.executable, str(fake), str(events), target, str(done or "")],
        )
        return run("check", target, *options)

    return check


def test_help_lists_the_commands_without_importing_anything_heavy() -> None:
    script = (
        "import sys; from detr_reference.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'rich', 'pytest'} & set(sys.modules), 'heavy'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("check", "diff", "spec", "targets"):
        assert command in done.stdout


def test_the_version_is_told() -> None:
    assert run("--version").output.startswith("detr-spec, version ")


def test_an_unknown_command_names_the_known_ones() -> None:
    result = run("chekc")
    assert result.exit_code == 2
    assert "the commands are:" in result.output
    assert "check" in result.output


@pytest.mark.parametrize("value", ["no_such_module:command", "json:dumps", "json:no_such_attribute"])
def test_a_broken_command_is_one_line_and_hides_no_other(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("bench", value, cli.COMMANDS)
    monkeypatch.setattr(cli, "entry_points", lambda **_: [entry])
    assert "does not load" in run("--help").output
    result = run("bench", "--anything", "at all")
    assert result.exit_code == 2
    assert result.output.startswith("Error: the command 'bench' of ")
    assert result.output.count("\n") == 1


def test_the_suite_gets_every_option_and_none_of_the_users_pytest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection = Selection(("a", "b"), "smoke", "cuda", "float16", 7, 3, "cases", "case.safetensors")
    command = suite_command("-odd.py:target", selection, tmp_path / "events")
    for option in (
        "--detr-target=-odd.py:target",
        "--detr-operation=a",
        "--detr-operation=b",
        "--detr-profile=smoke",
        "--detr-device=cuda",
        "--detr-dtype=float16",
        "--detr-seed=7",
        "--detr-cases=cases",
        "--detr-replay=case.safetensors",
        f"--detr-events={tmp_path / 'events'}",
        "--noconftest",
    ):
        assert option in command
    assert command[command.index("-n") + 1] == "3"
    assert Path(command[command.index("-c") + 1]).is_file()
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")
    monkeypatch.setenv("PYTEST_PLUGINS", "nonsense")
    kept = {name: value for name, value in suite_environment(selection).items() if name.startswith("PYTEST_")}
    assert kept == {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def test_a_runner_reaches_the_suite_and_the_replay_by_its_command(tmp_path: Path) -> None:
    selection = Selection(runner=True, time_limit=3.0, memory_limit=2.0)
    command = suite_command("./mine --fast", selection, tmp_path / "events")
    expected = {"--detr-runner=./mine --fast", "--detr-time-limit=3.0", "--detr-memory-limit=2.0"}
    assert expected <= set(command)
    assert not any(word.startswith(("--detr-target", "--detr-isolate")) for word in command)
    assert replay_command("./mine --fast", "c.safetensors", selection) == (
        "detr-spec check --runner './mine --fast' --replay c.safetensors"
    )


def test_a_conforming_target_exits_0(check: Check, here: Path) -> None:
    result = check("start(); running(); result(); finish()", "--json", "r.json", "--junit", "r.xml", "--html", "r.html")
    assert result.exit_code == 0
    assert "PASS  mine conforms: 1 passed" in result.output
    report = json.loads((here / "r.json").read_text())
    assert (report["schema_version"], report["verdict"]) == (1, "pass")
    assert "MSDA-2" in (here / "r.xml").read_text()
    assert "MSDA-2" in (here / "r.html").read_text()


def test_a_failing_target_exits_1(check: Check) -> None:
    result = check("start(); running(); result('fail'); finish(1)")
    assert result.exit_code == 1
    assert "MSDA-2 (MUST)" in result.output
    assert result.stdout.splitlines()[-1].startswith("FAIL  mine does not conform: 1 failed")


def test_what_cannot_be_told_exits_2_with_one_line(check: Check, here: Path) -> None:
    result = check("print('noise'); emit('error', message='no module named x'); sys.exit(2)", "--json", "r.json")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "checking mine.py:target",
        "Error: cannot tell whether mine.py:target conforms: no module named x",
    ]
    assert json.loads((here / "r.json").read_text())["verdict"] == "error"


def test_a_process_that_dies_before_the_tests_exits_2_and_shows_its_output(check: Check) -> None:
    result = check("print('first words'); print('last words'); sys.exit(4)")
    assert result.exit_code == 2
    assert "ended with status 4" in result.stderr
    assert "  | last words" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_crash_in_a_test_exits_1(check: Check) -> None:
    result = check(
        "import faulthandler; faulthandler.enable(); print('....', flush=True)\n"
        "start(); running(); os.kill(os.getpid(), signal.SIGSEGV)"
    )
    assert result.exit_code == 1
    assert "  | Fatal Python error: Segmentation fault" in result.stderr
    assert "..." not in result.stderr
    assert "the process died with SIGSEGV in this test" in result.output


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_after_a_crash_the_tests_that_are_left_are_run(check: Check) -> None:
    result = check(
        "done = open(sys.argv[3]).read().splitlines() if sys.argv[3] else []\n"
        "start(); emit('collected', tests=3 - len(done))\n"
        "for test in ('one', 'two', 'three'):\n"
        "    if test not in done:\n"
        "        running(test)\n"
        "        if test == 'two': os.kill(os.getpid(), signal.SIGSEGV)\n"
        "        emit('result', test=test, clauses=['MSDA-2' if test == 'one' else 'MSDA-3'], outcome='pass')\n"
        "finish()",
        *("--json", "report.json"),
    )
    assert result.exit_code == 1
    report = json.loads(Path("report.json").read_text())
    assert report["clauses"]["MSDA-2"]["verdict"] == "fail"  # of test two; one passed
    assert report["clauses"]["MSDA-2"]["message"] == "the process died with SIGSEGV in this test"
    assert report["clauses"]["MSDA-3"]["verdict"] == "pass"


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_who_dies_in_every_test_is_not_asked_for_ever(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "RESTARTS", 2)
    result = check(
        "done = open(sys.argv[3]).read().splitlines() if sys.argv[3] else []\n"
        "print(len(done), file=open('runs.txt', 'a'))\n"
        "start(); running(f'test {len(done)}'); os.kill(os.getpid(), signal.SIGSEGV)"
    )
    assert result.exit_code == 1
    assert Path("runs.txt").read_text().split() == ["0", "1", "2"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_kill_from_outside_exits_2(check: Check) -> None:
    result = check("start(); running(); result(); running('y'); os.kill(os.getpid(), signal.SIGKILL)")
    assert result.exit_code == 2
    assert "died with SIGKILL in y" in result.output


def test_a_suite_that_fails_itself_shows_its_output(check: Check) -> None:
    result = check("start(); print('INTERNALERROR> oh'); finish(3)")
    assert result.exit_code == 2
    assert "the suite itself failed" in result.stderr
    assert "  | INTERNALERROR> oh" in result.stderr


def test_a_process_that_will_not_end_is_ended(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "GRACE_SECONDS", 0.1)
    begun = time.monotonic()
    assert check("start(); result(); finish(); time.sleep(60)").exit_code == 0
    assert time.monotonic() - begun < 20


def test_an_unusable_deviation_file_exits_2_at_once(check: Check, here: Path) -> None:
    (here / "d.toml").write_text("[[deviation]]\nclause = 'MSDA-2'\n")
    begun = time.monotonic()
    result = check("start(deviations=os.path.abspath('d.toml')); time.sleep(60)")
    assert result.exit_code == 2
    assert "d.toml, entry 1: the key 'kind' is missing" in result.stderr
    assert time.monotonic() - begun < 20


def test_a_declared_deviation_exits_0(check: Check, here: Path) -> None:
    (here / "d.toml").write_text(
        "[[deviation]]\nclause = 'MSDA-2'\nkind = 'bug'\nreason = 'rounds'\nlink = 'x'\nversions = '==1.*'\n"
    )
    result = check("start(deviations=os.path.abspath('d.toml')); result('fail'); finish(1)")
    assert result.exit_code == 0
    assert "MSDA-2 (bug) rounds" in result.output


def test_several_targets_give_a_summary_and_the_worst_status(
    check: Check, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {name: EntryPoint(name, "x:y", loaders.GROUP) for name in ("peer-a", "peer-b", "peer-c")}
    monkeypatch.setattr(loaders, "installed_targets", lambda: entries)
    script = """
    if sys.argv[2] == "peer-b":
        emit("error", message="not here")
    else:
        start(); result("fail" if sys.argv[2] == "peer-a" else "pass")
    finish()
    """
    result = check(script, "--json", "r.json", target="peer")
    assert result.exit_code == 2
    document = json.loads((here / "r.json").read_text())
    assert document["verdict"] == "error"
    assert [report["verdict"] for report in document["reports"]] == ["fail", "error", "pass"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-target"], "no target 'no-such-target'"),
        (["none.py:target"], "there is no file 'none.py'"),
        (["mine.py"], "write mine.py:target"),
        (["mine.py:target", "--json", "no/such/folder/r.json"], "there is no folder"),
        (["mine.py:target", "--html", "."], "it is a folder"),
        (["mine.py:target", "--replay", "no-case"], "does not exist"),
        (["mine.py:target", "--operation", "conv"], "there is no operation"),
        (["mine.py:target", "--dtype", "int8"], "is not one of"),
        (["mine.py:target", "--jobs", "0"], "x>=1"),
        ([], "Missing argument 'TARGET'"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_mistake_in_the_arguments_exits_2(arguments: list[str], said: str) -> None:
    result = run("check", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_report_is_written_even_for_a_target_that_is_not_found(here: Path) -> None:
    (here / "r.json").write_text("an older report")
    run("check", "no-such-target", "--json", "r.json", "--junit", "r.xml", "--html", "r.html")
    report = json.loads((here / "r.json").read_text())
    assert report["verdict"] == "error"
    assert "no target 'no-such-target'" in report["message"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_suite_and_exits_130(here: Path, number: signal.Signals) -> None:
    fake, command = here / "fake.py", here / "command.py"
    fake.write_text(
        PRELUDE
        + "import subprocess; worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "start(); running('slow'); open('pids', 'w').write(f'{os.getpid()} {worker.pid} '); time.sleep(60)"
    )
    command.write_text(
        "import signal\nimport sys\nfrom detr_conformance.running import runner\nfrom detr_reference.cli import main\n"
        # A shell starts background jobs with SIGINT ignored, and children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"runner.suite_command = lambda target, _, events, done: [sys.executable, {str(fake)!r}, str(events)]\n"
        "main(['check', 'mine.py:target'])\n"
    )
    process = subprocess.Popen([sys.executable, str(command)], stderr=subprocess.PIPE, text=True, cwd=here)
    pids = _wait_for(lambda: (here / "pids").read_text() if (here / "pids").exists() else "")
    time.sleep(3 * runner.POLL_SECONDS)  # for the last event to arrive
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.splitlines()[1:] == ["interrupted in slow, after 0 of ? tests"]
    assert _wait_for(lambda: not any(_lives(int(pid)) for pid in pids.split()))


def _wait_for(condition: Callable[[], Any], seconds: float = 15) -> Any:
    until = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < until:
        time.sleep(0.02)
    return value


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # In a container nobody may collect an orphan that has ended.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc").is_dir()


def test_spec_lists_and_shows_clauses() -> None:
    everything = run("spec").output
    assert "MSDA-1 " in everything
    assert "MSDM-1 " in everything
    chapter = run("spec", "msdm").output
    assert "MSDM-1 " in chapter
    assert "MSDA-1 " not in chapter
    clause = run("spec", "msda-1")
    assert clause.exit_code == 0
    assert clause.output.startswith("MSDA-1 (MUST)")
    assert "01-deformable-attention.md:" in clause.output
    assert "mutants it must reject" in clause.output


@pytest.mark.parametrize("wanted", ["MSDA-999", "MSAD", "nonsense", "MSDA-1-2"])
def test_an_unknown_clause_exits_2(wanted: str) -> None:
    result = run("spec", wanted)
    assert result.exit_code == 2
    assert "did you mean" in result.stderr or "ids begin with" in result.stderr


def test_targets_lists_what_loads_and_why_the_rest_does_not(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "good_target_of_test.py").write_text(
        "from detr_conformance import Target\n"
        "target = Target(name='good', provides={'ms_deform_attn': print}, dtypes=('float16',), devices=('cuda',))\n"
    )
    monkeypatch.syspath_prepend(here)
    values = {"good": "good_target_of_test:target", "bad": "no_such_package_of_test:target"}
    entries = {name: EntryPoint(name, value, loaders.GROUP) for name, value in values.items()}
    monkeypatch.setattr(loaders, "installed_targets", lambda: entries)
    table = run("targets")
    assert table.exit_code == 0
    assert "f16" in table.output
    assert "cannot be loaded" in table.output
    assert "bad" not in run("targets", "--operation", "ms_deform_attn").output
    assert "good" not in run("targets", "--operation", "mlp").output
    assert "float16 on cuda" in run("targets", "good").output
    assert "no_such_package_of_test" in run("targets", "bad").output
    assert run("targets", "worse").exit_code == 2


def test_an_operation_that_is_nearly_right_is_answered_with_the_right_one() -> None:
    result = run("check", "reference", "--operation", "ms_deform_atn")
    assert result.exit_code == 2
    assert "there is no operation 'ms_deform_atn'; did you mean ms_deform_attn" in result.stderr


def report(name: str = "mine", verdict: str = "pass", ratio: float = 0.5, **clauses: str) -> dict[str, Any]:
    nested = {"ms_deform_attn": {"cpu": {"float32": ratio}}}
    return {
        "schema_version": 1,
        "target": {"name": name, "version": "1.0"},
        "environment": {"torch": "2.13"},
        "verdict": verdict,
        "message": None,
        "clauses": {
            clause.replace("_", "-"): {"verdict": outcome, "worst_error_ratio": nested, "mismatches": {}}
            for clause, outcome in clauses.items()
        },
        "times": {},
    }


@pytest.mark.parametrize(
    ("old", "new", "status", "said"),
    [
        (report(A_1="pass"), report(A_1="pass"), 0, "no verdict differs"),
        (report(A_1="pass"), report(verdict="fail", A_1="fail"), 1, "A-1: pass -> fail"),
        (report(A_1="pass"), report(A_1="pass", A_2="pass"), 1, "A-2: absent -> pass"),
        (report(A_1="pass"), report(ratio=0.9, A_1="pass"), 0, "no verdict differs"),
        (report(A_1="pass"), report(ratio=1.1, A_1="pass"), 0, "error / limit 0.5 -> 1.1 (ms_deform_attn cpu float32)"),
        (report("a", A_1="pass"), report("b", A_1="pass"), 0, "a -> b"),
        (
            {"schema_version": 1, "verdict": "pass", "reports": [report("a"), report("b")]},
            report("a"),
            1,
            "verdict: pass -> absent",
        ),
    ],
)
def test_diff_tells_what_changed(here: Path, old: dict[str, Any], new: dict[str, Any], status: int, said: str) -> None:
    for name, document in (("old.json", old), ("new.json", new)):
        (here / name).write_text(json.dumps(document))
    result = run("diff", "old.json", "new.json")
    assert result.exit_code == status
    assert said in result.output
    assert ("worst error" in result.output) == ("error / limit" in said)


def test_check_writes_a_compressed_report_that_diff_reads(check: Check, here: Path) -> None:
    for name in ("old.json", "new.json.gz"):
        assert check("start(); running(); result(); finish()", "--json", name).exit_code == 0
    assert (here / "new.json.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert run("diff", "old.json", "new.json.gz").output == "no verdict differs\n"


def test_diff_of_what_is_no_report_exits_2(here: Path) -> None:
    (here / "old.json").write_text("{}")
    assert run("diff", "old.json", "none.json").exit_code == 2
    (here / "new.json").write_text(json.dumps(report()))
    result = run("diff", "old.json", "new.json")
    assert result.exit_code == 2
    assert "old.json is not a report" in result.stderr


def test_of_a_group_those_are_checked_that_provide_the_operation() -> None:
    """Each is asked for what it has; a single target is asked for all of it, and says what it lacks."""
    asked = Selection(operations=("vit", "mlp"))
    chosen = dict(_asked_for(resolve_names("transformers"), asked))
    assert chosen["transformers-vit"].operations == ("vit",)
    assert chosen["transformers-detr"].operations == ("mlp",)
    assert "transformers-dinov2" not in chosen
    assert _asked_for(["transformers-dinov2"], asked) == [("transformers-dinov2", asked)]
