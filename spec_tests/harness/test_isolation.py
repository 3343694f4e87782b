"""A target in a process of its own: nothing that it does is worse than the verdict of its case."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from detr_conformance.isolation.process import Limits, Process, python_command
from detr_conformance.isolation.remote import isolated
from detr_conformance.running.loaders import load_target
from detr_conformance.running.mutants import MUTANTS
from detr_conformance.running.trial import rejection, trials
from detr_conformance.target import Target, TargetError
from helpers.places import ROOT

HOSTILE = ROOT / "spec_tests" / "helpers" / "hostile_targets.py"
LIMITS = Limits(seconds=4.0, memory=3 << 30)
# Nothing to do, where the hostile ones do what they do; and an ordinary clause before and after it.
ASKED = {"MSDA-6", "MSDA-42", "MSDA-53"}

pytestmark = [
    pytest.mark.usefixtures("unchecked_shapes"),
    pytest.mark.skipif(sys.platform != "linux", reason="signals and limits as Linux has them"),
]


def hostile(name: str) -> Target:
    return isolated(f"{HOSTILE}:{name}", LIMITS)


def verdicts(target: Target, clauses: set[str]) -> dict[str, str]:
    """What failed, by clause; a clause that passes has an empty message."""
    found: dict[str, str] = {}
    for test, _, failure in trials(target, clauses):
        found[test.clauses[0]] = found.get(test.clauses[0]) or (str(failure) if failure else "")
    return found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("crashing", "died of SIGSEGV"),
        ("exiting", "exited with status 0"),
        ("leaving", "exited with status 0"),
        ("hanging", "gave no answer within 4 s and was ended"),
        ("eating", "alloc"),
        ("garbling", "wrote what is no message: 'verdict: pass'"),
    ],
)
def test_what_befalls_the_process_is_the_verdict_of_its_case(name: str, said: str) -> None:
    found = verdicts(hostile(name), ASKED)
    assert found.keys() == ASKED
    assert said in found.pop("MSDA-42")
    assert set(found.values()) == {""}, "the other clauses are judged, and it is right there"


def test_what_a_target_prints_is_no_answer() -> None:
    assert set(verdicts(hostile("chattering"), ASKED).values()) == {""}


@pytest.mark.parametrize(
    "name",
    [
        *("gradient-scaled-in-place", "output-view", "default-dtype-left", "compiled-without-gate"),
        *("scratch-on-the-kernel", "block-stale-weights", "block-shallow-copy", "losses-local-number"),
    ],
)
def test_what_is_wrong_here_is_wrong_there(name: str) -> None:
    """Memory, state, modes, threads, copies, processes of a training: whatever is asked is asked there too."""
    served = isolated(f"{ROOT / 'spec_tests' / 'helpers' / 'served.py'}:{name}", Limits())
    assert rejection(served, MUTANTS[name].rejects) is not None


@pytest.mark.parametrize("name", ["patching", "lying", "pretending", "reading", "disturbing"])
def test_nothing_is_gained_by_knowing_the_judge(name: str) -> None:
    modes = torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state()
    assert all(verdicts(hostile(name), {"MSDA-6", "MSDA-53"}).values())
    assert (torch.get_default_dtype(), torch.get_num_threads()) == modes[:2]
    assert torch.equal(torch.get_rng_state(), modes[2])


@pytest.mark.parametrize("name", ["pretending", "reading"])
def test_in_the_process_of_the_judge_something_is_gained(name: str) -> None:
    """Which is why there is another one."""
    assert not any(verdicts(load_target(f"{HOSTILE}:{name}"), {"MSDA-6", "MSDA-53"}).values())


def test_one_that_dies_at_once_is_named(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text("import os\nos.abort()\n")
    with pytest.raises(TargetError, match=r"died of SIGABRT when it was started"):
        isolated(f"{tmp_path / 'dying.py'}:target", LIMITS)


def test_one_that_does_not_load_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    with pytest.raises(TargetError, match="no_such_package"):
        isolated(f"{tmp_path / 'broken.py'}:target", LIMITS)


def test_the_process_holds_neither_suite_nor_reference_nor_pytest(tmp_path: Path) -> None:
    """In a call of the target, for which the modules are written down."""
    (tmp_path / "looking.py").write_text(
        "import sys\n"
        "from detr_conformance import Target\n"
        "def core(value, *rest):\n"
        f"    open({str(tmp_path / 'seen.txt')!r}, 'w').write('\\n'.join(sys.modules))\n"
        "    return value\n"
        "target = Target('looking', provides={'ms_deform_attn': core})\n"
    )
    target = isolated(f"{tmp_path / 'looking.py'}:target", LIMITS)
    target.provides["ms_deform_attn"](torch.zeros(1))
    seen = (tmp_path / "seen.txt").read_text().splitlines()
    packages = {name.partition(".")[0] for name in seen}
    assert not packages & {"pytest", "_pytest", "hypothesis", "detr_reference", "detr_bench"}
    rooms = {".".join(name.split(".")[:2]) for name in seen if name.startswith("detr_conformance")}
    assert rooms <= {"detr_conformance"} | {f"detr_conformance.{each}" for each in ("operations", "stages", "target")}


def test_a_target_that_always_dies_is_not_started_for_ever() -> None:
    process = Process([sys.executable, "-c", "raise SystemExit(3)"], LIMITS)
    said = []
    for _ in range(30):
        try:
            process.start()
        except BaseException as died:
            said.append(str(died))
    assert "exited with status 3" in said[0]
    assert "is not started again" in said[-1]


def test_a_process_ends_with_its_judge() -> None:
    process = Process(python_command(f"{HOSTILE}:hanging", LIMITS), LIMITS)
    process.start()
    assert process.popen is not None
    process.end()
    assert process.popen.poll() is not None
