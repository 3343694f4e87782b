"""`python -m detr_conformance.likeness.beside REQUEST EVENTS`: a failing target beside the mutants, in this process.

REQUEST is what `asking` writes; EVENTS gets a JSON object a line:

    questions  number                           how many will be asked of an operation
    answered                                    one of them was
    likeness   operation, names, cases, probes  mutants that the target computes the same as
    finish
"""

from __future__ import annotations

import faulthandler
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from detr_conformance.harness.case_files import CaseFileError, read_case
from detr_conformance.harness.subject import Settings
from detr_conformance.isolation.process import Died, NotDone
from detr_conformance.likeness.known import Known
from detr_conformance.likeness.naming import Failed, likeness, steps, still_possible
from detr_conformance.likeness.store import Store, forget_old
from detr_conformance.likeness.traces import Traced
from detr_conformance.reporting.selection import Selection
from detr_conformance.running.placing import load
from detr_conformance.running.trial import suite_test_of, suite_tests
from detr_conformance.stages import STAGES
from detr_conformance.target import Target

CASES_OF_A_MODEL = 6
FEW_PROBES = 4  # where each form of a call is compiled anew
Tell = Callable[[dict[str, Any]], None]


def answer(request: Mapping[str, Any], tell: Tell) -> None:
    """Compares the target with the mutants of each operation that it failed in."""
    asked: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in request["selection"].items()}
    selection = Selection(**asked)
    target = load(request["target"], selection)
    forget_old()
    for operation, about in request["operations"].items():
        known, failed = of_operation(target, operation, about, selection)
        tell({"event": "questions", "number": steps(known, failed)})
        try:
            candidates = still_possible(operation, about["verdicts"])
            found = likeness(known, known.like, failed, candidates, lambda: tell({"event": "answered"}))
        except (NotDone, Died):
            continue  # without an answer there is no likeness
        finally:
            known.save()
        if found is not None:
            said = {"names": found.names, "cases": found.cases, "probes": found.probes}
            tell({"event": "likeness", "operation": operation, **said})


def of_operation(
    target: Target, operation: str, about: Mapping[str, Any], selection: Selection
) -> tuple[Known, list[Failed]]:
    """The probes of an operation, and the cases in which the target failed."""

    def like(device: str, dtype: str) -> Traced:
        settings = Settings(selection.profile, selection.seed, shrink=False)
        how = tuple(target.features), target.variants, target.stages, settings
        return Traced(operation, target.provides[operation], dtype, device, *how)

    shown = about["failed"][: CASES_OF_A_MODEL if operation in STAGES else None]
    failed = [
        Failed(judge, case, like(each["device"], each["dtype"])) for judge, case, each in _saved(operation, shown)
    ]
    device = about["failed"][0]["device"]
    dtype = "float32" if "float32" in target.dtypes and not selection.dtype else about["failed"][0]["dtype"]
    first = like(device, dtype)
    most = FEW_PROBES if selection.shapes == "few" else None
    return Known(first, Store.of(first), most), failed


def _saved(operation: str, failed: list[dict[str, Any]]) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """The test, its saved case, and where it failed; a test that was renamed since, or no case, is an error."""
    judges = {name_of(judge): judge for judge in suite_tests()[operation]}
    for each in failed:
        yield judges[each["test"].partition("[")[0]], read_case(Path(each["case_file"]))[0], each


def name_of(judge: Any) -> str:
    """As reports name a test, without the place that it ran in."""
    return f"{judge.__module__.rpartition('.')[2]}.py::{suite_test_of(judge).name}"


def main(request: Path, events: Path) -> None:
    asked = json.loads(request.read_text(encoding="utf-8"))
    faulthandler.dump_traceback_later(asked["seconds"], exit=True)  # also where nothing in Python runs any more
    with events.open("a", encoding="utf-8") as stream:

        def tell(event: dict[str, Any]) -> None:
            stream.write(json.dumps(event) + "\n")
            stream.flush()

        try:
            answer(asked, tell)
        except (CaseFileError, KeyError) as error:
            sys.exit(f"nothing to compare: {error}")
        tell({"event": "finish"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
