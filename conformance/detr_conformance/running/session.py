"""One run of the suite against one target: what was asked for, what applies, and what each test found."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from detr_conformance.evidence.clauses import load_clauses
from detr_conformance.harness.case_files import CaseFileError, read_case, write_case
from detr_conformance.harness.divergence import first_divergence
from detr_conformance.harness.drive import Failure
from detr_conformance.harness.subject import NotProvided, Settings, Subject
from detr_conformance.harness.suite_test import SuiteTest
from detr_conformance.isolation.process import NotDone
from detr_conformance.operations import OPERATIONS, TRAINED
from detr_conformance.reporting.deviations import DeviationError, load_deviations
from detr_conformance.reporting.json_file import write_json
from detr_conformance.reporting.report import build_report
from detr_conformance.reporting.selection import Selection
from detr_conformance.running.devices import describe_device, is_present
from detr_conformance.running.handshake import HandshakeError, shake_hands
from detr_conformance.running.loaders import resolve_names
from detr_conformance.running.placing import load
from detr_conformance.running.trial import exempt
from detr_conformance.stages import STAGES
from detr_conformance.target import DTYPES, Target, TargetError
from detr_conformance.topics.deformable_attention.cases.sizes import pairs_left_out

if TYPE_CHECKING:
    import pytest


class SetupError(Exception):
    """No verdict is possible: the target does not load, its device is absent, or it fails an ordinary call."""


@dataclass(frozen=True)
class Parameter:
    """An operation, device and dtype to run a test on, or the reason why it does not apply to the target."""

    operation: str
    device: str = "-"
    dtype: str = "-"
    absent: str | None = None

    @property
    def id(self) -> str:
        return "not-provided" if self.absent else f"{self.device}-{self.dtype}"


@dataclass(frozen=True)
class Outcome:
    """What a test found: an event, and for pytest's own output a text."""

    event: dict[str, Any]
    text: str | None = None


@dataclass
class Session:
    """Holds the target and the options of a run."""

    target: Target
    selection: Selection
    name: str
    settings: Settings
    devices: tuple[str, ...]
    dtypes: tuple[str, ...]
    replayed_test: str | None = None

    @staticmethod
    def from_options(options: Namespace) -> Session:
        """Loads the target and shakes hands.

        Raises:
            SetupError: no verdict is possible; one line that says why.
        """
        selection = Selection(
            operations=tuple(options.detr_operation),
            profile=options.detr_profile,
            device=options.detr_device,
            dtype=options.detr_dtype,
            seed=options.detr_seed,
            cases_dir=options.detr_cases,
            replay=options.detr_replay,
            isolate=options.detr_isolate,
            runner=options.detr_runner is not None,
            time_limit=options.detr_time_limit,
            memory_limit=options.detr_memory_limit,
        )
        try:
            name = options.detr_runner or _one_name(options.detr_target)
            target = load(name, selection)
            replay = read_case(Path(options.detr_replay)) if options.detr_replay else None
        except (TargetError, CaseFileError) as error:
            raise SetupError(str(error)) from error
        if options.detr_profile == "training":
            _refuse_untrained(target, options.detr_operation)
        for operation in options.detr_operation:
            if operation not in OPERATIONS:
                raise SetupError(f"unknown operation {operation!r}; known: {', '.join(OPERATIONS)}")
            if operation not in target.provides:
                raise SetupError(f"target {target.name!r} does not provide {operation!r}")
        session = Session(
            target=target,
            selection=selection,
            name=options.detr_runner or options.detr_target,
            settings=Settings(options.detr_profile, options.detr_seed, replay=replay[0] if replay else None),
            devices=_devices(target, options.detr_device),
            dtypes=_dtypes(target, options.detr_dtype),
            replayed_test=replay[1] if replay else None,
        )
        session._shake_hands()
        return session

    def _shake_hands(self) -> None:
        for operation in self.operations():
            judged = [dtype for dtype in self.dtypes if dtype in OPERATIONS[operation].dtypes]
            first = Parameter(operation, self.devices[0], (judged or self.dtypes)[0])
            try:
                shake_hands(self.subject(first))
            except HandshakeError as error:
                raise SetupError(f"{self.target.name}, {operation}: {error}") from error

    def operations(self) -> tuple[str, ...]:
        """The operations to check: what the target provides, as far as it was asked for."""
        known = TRAINED if self.selection.profile == "training" else OPERATIONS
        return tuple(op for op in self.target.provides if op in known and op in (self.selection.operations or known))

    # -- what applies -------------------------------------------------------------------------------------

    def selects(self, operation: str, test: str, about: SuiteTest) -> bool:
        """Whether a test (with its parameter) is to be run."""
        wanted = operation in self.operations() and about.runs_in(self.selection.profile)
        return wanted and (self.replayed_test is None or self.replayed_test == test)

    def parameters(self, operation: str, test: SuiteTest) -> list[Parameter]:
        """Where a test runs; a single reason if nowhere."""
        if operation not in self.target.provides:
            return [Parameter(operation, absent=f"{operation} is not provided")]
        if test.feature is not None and test.feature not in self.target.features:
            return [Parameter(operation, absent=f"the feature {test.feature} is not claimed")]
        if exempt(operation, test):
            return [Parameter(operation, absent=f"{', '.join(test.clauses)} is no question of {operation}")]
        judged = [dtype for dtype in test.dtypes if dtype in OPERATIONS[operation].dtypes]
        dtypes = [dtype for dtype in self.dtypes if dtype in judged]
        if not dtypes:
            return [Parameter(operation, absent=f"none of {', '.join(judged)} is claimed or asked for")]
        if test.once:
            dtypes = ["float32"] if "float32" in dtypes else dtypes[:1]
        return [Parameter(operation, device, dtype) for device in self.devices for dtype in dtypes]

    def subject(self, parameter: Parameter) -> Subject:
        return Subject(
            operation=parameter.operation,
            implementation=self.target.provides[parameter.operation],
            dtype=parameter.dtype,
            device=parameter.device,
            features=tuple(self.target.features),
            variants=self.target.variants,
            stages=self.target.stages,
            settings=self.settings,
        )

    # -- what was found -------------------------------------------------------------------------------------

    def outcome(self, item: pytest.Item, error: BaseException | None) -> Outcome:
        """The result event of a test from the exception that ended it."""
        test: SuiteTest = item.function.suite_test  # type: ignore[attr-defined]
        subject = getattr(item, "funcargs", {}).get("subject")
        parameter: Parameter = item.callspec.params["subject"]  # type: ignore[attr-defined]
        event: dict[str, Any] = {
            "event": "result",
            "test": Path(item.nodeid).name,
            "clauses": list(test.clauses),
            "operation": parameter.operation,
            "device": parameter.device,
            "dtype": parameter.dtype,
            "feature": test.feature,
            "outcome": "pass",
            "worst_error_ratio": None,
            "mismatches": None,
            "cases": 0,
            "message": None,
            "failure": None,
            "case_file": None,
        }
        if isinstance(subject, Subject):
            ratio = subject.worst_ratio
            event |= {
                "cases": subject.cases,
                "worst_error_ratio": _rounded(ratio),
                "mismatches": None if subject.exact is None else 0,
                "reached": subject.reached.rows(),
            }
        if parameter.absent:
            return Outcome(event | {"outcome": "not-provided", "message": parameter.absent})
        if isinstance(error, NotProvided):
            return Outcome(event | {"outcome": "not-provided", "message": str(error)})
        if isinstance(error, NotDone):
            return Outcome(event | {"outcome": "not-exercised", "message": str(error)})
        if isinstance(error, Failure):
            return self._failure(event, test, error, event["test"], subject)
        if error is not None:
            message = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            return Outcome(event | {"outcome": "error", "message": message})
        return Outcome(event)

    def _failure(
        self, event: dict[str, Any], test: SuiteTest, failure: Failure, name: str, subject: Subject | None
    ) -> Outcome:
        mismatch, clause = failure.mismatch, test.clauses[0]
        path = self.selection.replay or str(
            write_case(Path(self.selection.cases_dir), failure.case, clause=clause, test=name)
        )
        described = failure.case.describe()
        details = [described] if mismatch.detail is None else [described, mismatch.detail]
        if subject is not None and subject.operation in STAGES and test.profile is None:
            details += [first_divergence(subject, failure.case) or "no stages are named that could be compared"]
        if mismatch.ratio is not None:
            event["worst_error_ratio"] = _rounded(mismatch.ratio)
        if event["mismatches"] is not None and mismatch.count is not None:
            event["mismatches"] = int(mismatch.count.split()[0])
        event |= {
            "outcome": "fail",
            "message": mismatch.message,
            "failure": {
                "where": mismatch.where,
                "expected": mismatch.expected,
                "got": mismatch.got,
                "limit": mismatch.limit,
                "count": mismatch.count,
                "detail": "\n".join(details),
            },
            "case_file": path,
        }
        clauses = load_clauses()
        text = clauses[clause].text if clause in clauses else ""
        lines = [
            f"{', '.join(test.clauses)}: {text}",
            "",
            mismatch.message,
            f"case: {described}",
            f"saved: {path}",
        ]
        return Outcome(event, "\n".join(lines))

    def start_event(self) -> dict[str, Any]:
        target = self.target
        return {
            "event": "start",
            "target": {"name": target.name, "version": target.version},
            "environment": {
                "detr_spec": importlib.metadata.version("detr-spec"),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "platform": f"{sys.platform} {platform.machine()}",
                "threads": torch.get_num_threads(),
                "devices": {device: describe_device(device) for device in self.devices},
                "absent_devices": [device for device in target.devices if device not in self.devices],
                "profile": self.selection.profile,
                "seed": self.selection.seed,
                "isolated": self.selection.isolate or self.selection.runner,
            },
            "target_info": {
                "provides": list(target.provides),
                "dtypes": list(target.dtypes),
                "devices": list(target.devices),
                "features": list(target.features),
                "variants": dict(target.variants),
                "sizes_left_out": self._sizes_left_out(),
                "deviations": str(target.deviations) if target.deviations else None,
            },
        }

    def _sizes_left_out(self) -> list[str]:
        """Pairs of sizes that belong together into no call of the profile full-size: none would fit into memory."""
        about = self.selection.profile == "full-size" and "ms_deform_attn" in self.operations()
        return pairs_left_out() if about else []

    def write_report(self, events: Sequence[dict[str, Any]], path: Path) -> None:
        """The JSON report of a run inside somebody's own pytest session."""
        try:
            known = load_deviations(self.target.deviations, self.target.name) if self.target.deviations else []
        except DeviationError as error:
            known, events = [], [*events, {"event": "error", "message": str(error)}]
        report = build_report(events, load_clauses(), known, target=self.name, selection=self.selection)
        write_json(path, report)


def _one_name(target: str) -> str:
    names = resolve_names(target)
    if len(names) != 1:
        raise SetupError(f"--detr-target {target} is {len(names)} targets; name one of {', '.join(names)}")
    return names[0]


def _refuse_untrained(target: Target, asked: Sequence[str]) -> None:
    about = ", ".join(TRAINED)
    if strange := [operation for operation in asked if operation not in TRAINED]:
        raise SetupError(f"the profile training is not about {', '.join(strange)}; it is about {about}")
    if not set(TRAINED) & set(target.provides):
        raise SetupError(f"target {target.name!r} provides nothing that the profile training is about: {about}")
    if "backward" not in target.features:
        raise SetupError(f"target {target.name!r} does not claim the feature backward, so it cannot be trained")


def _rounded(ratio: float | None) -> float | None:
    """A ratio for the report, which holds no infinity: None where there is none, or where its end is not told."""
    if ratio is None:
        return None
    rounded = float(f"{ratio:.4g}")  # this, too, can reach infinity
    return rounded if math.isfinite(rounded) else None


def _devices(target: Target, asked: str | None) -> tuple[str, ...]:
    if asked is not None:
        if asked.split(":")[0] not in target.devices:
            raise SetupError(f"target {target.name!r} claims {', '.join(target.devices)}, not {asked!r}")
        if not is_present(asked):
            raise SetupError(f"device {asked!r} is absent on this machine")
        return (asked,)
    present = tuple(device for device in target.devices if is_present(device))
    if not present:
        raise SetupError(f"target {target.name!r} runs on {', '.join(target.devices)}, absent on this machine")
    return present


def _dtypes(target: Target, asked: str | None) -> tuple[str, ...]:
    if asked is None:
        return tuple(dtype for dtype in DTYPES if dtype in target.dtypes)
    if asked not in target.dtypes:
        raise SetupError(f"target {target.name!r} claims {', '.join(target.dtypes)}, not {asked!r}")
    return (asked,)
