"""One run of the suite against one target: what was asked for, what applies, and what each test found."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from detr_conformance.evidence.clauses import load_clauses
from detr_conformance.harness.case import Case
from detr_conformance.harness.case_files import CaseFileError, read_case
from detr_conformance.harness.few_shapes.budget import Forms
from detr_conformance.harness.subject import Calls, Settings, Subject
from detr_conformance.harness.suite_test import SuiteTest
from detr_conformance.operations import OPERATIONS, TRAINED
from detr_conformance.recording.calls import Call, prepared, read_calls
from detr_conformance.recording.parts import parts_of_call
from detr_conformance.reporting.deviations import DeviationError, load_deviations
from detr_conformance.reporting.json_file import write_json
from detr_conformance.reporting.report import build_report
from detr_conformance.reporting.selection import Selection
from detr_conformance.running.devices import describe_device, is_present
from detr_conformance.running.handshake import HandshakeError, shake_hands
from detr_conformance.running.loaders import resolve_names
from detr_conformance.running.outcomes import Outcome, Parameter, outcome_of
from detr_conformance.running.placing import load
from detr_conformance.running.trial import exempt
from detr_conformance.target import DTYPES, Target, TargetError
from detr_conformance.topics.deformable_attention.cases.sizes import pairs_left_out

if TYPE_CHECKING:
    import pytest


class SetupError(Exception):
    """No verdict is possible: the target does not load, its device is absent, or it fails an ordinary call."""


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
    recorded: Sequence[Call] | None = None
    calls: dict[tuple[str, str], list[Case]] = field(default_factory=dict)
    forms: dict[tuple[str, str, str], Forms] = field(default_factory=dict)

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
            clauses=tuple(options.detr_clause),
            calls=options.detr_calls,
            shapes=options.detr_shapes,
        )
        try:
            name = options.detr_runner or _one_name(options.detr_target)
            target = load(name, selection)
            replay = read_case(Path(options.detr_replay)) if options.detr_replay else None
            recorded = read_calls(Path(options.detr_calls)) if options.detr_calls else None
        except (TargetError, CaseFileError) as error:
            raise SetupError(str(error)) from error
        if options.detr_profile == "training":
            _refuse_untrained(target, options.detr_operation)
        for clause in options.detr_clause:
            if clause not in load_clauses():
                raise SetupError(f"there is no clause {clause!r}")
        for operation in options.detr_operation:
            if operation not in OPERATIONS:
                raise SetupError(f"unknown operation {operation!r}; known: {', '.join(OPERATIONS)}")
            if operation not in target.provides:
                raise SetupError(f"target {target.name!r} does not provide {operation!r}")
        if recorded is not None and not {operation for operation, *_ in recorded} & set(target.provides):
            found = ", ".join(sorted({operation for operation, *_ in recorded}))
            raise SetupError(f"{options.detr_calls} has calls of {found}; {target.name!r} provides none of that")
        session = Session(
            target=target,
            selection=selection,
            name=options.detr_runner or options.detr_target,
            settings=Settings(
                options.detr_profile,
                options.detr_seed,
                replay=replay[0] if replay else None,
                few_shapes=selection.shapes == "few",
            ),
            recorded=recorded,
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
        known: Iterable[str] = TRAINED if self.selection.profile == "training" else OPERATIONS
        if self.recorded is not None:
            known = {operation for operation, *_ in self.recorded}
        return tuple(op for op in self.target.provides if op in known and op in (self.selection.operations or known))

    # -- what applies -------------------------------------------------------------------------------------

    def selects(self, operation: str, test: str, about: SuiteTest) -> bool:
        """Whether a test (with its parameter) is to be run."""
        wanted = operation in self.operations() and about.runs_in(self.selection.profile)
        wanted = wanted and self.selection.asks(about.clauses) and (about.any_call or self.recorded is None)
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
        if self.recorded is not None:
            judged = [dtype for dtype in judged if any(each[:2] == (operation, dtype) for each in self.recorded)]
            if not judged:
                return [Parameter(operation, absent=f"no call of {operation} was recorded")]
        dtypes = [dtype for dtype in self.dtypes if dtype in judged]
        if not dtypes:
            return [Parameter(operation, absent=f"none of {', '.join(judged)} is claimed or asked for")]
        if test.once:
            dtypes = ["float32"] if "float32" in dtypes else dtypes[:1]
        return [Parameter(operation, device, dtype) for device in self.devices for dtype in dtypes]

    def subject(self, parameter: Parameter) -> Subject:
        subject = Subject(
            operation=parameter.operation,
            implementation=self.target.provides[parameter.operation],
            dtype=parameter.dtype,
            device=parameter.device,
            features=tuple(self.target.features),
            variants=self.target.variants,
            stages=self.target.stages,
            settings=self.settings,
            forms=self._forms_of(parameter),
        )
        if self.recorded is not None:
            subject.settings = replace(
                self.settings, calls=Calls(self._calls_of(subject, self.recorded), parts_of_call)
            )
        return subject

    def _calls_of(self, subject: Subject, recorded: Sequence[Call]) -> list[Case]:
        """Those of its operation and dtype, made ready once for all tests."""
        about = subject.operation, subject.dtype
        if about not in self.calls:
            self.calls[about] = [prepared(subject, case) for *of, case in recorded if tuple(of) == about]
        return self.calls[about]

    def _forms_of(self, parameter: Parameter) -> Forms | None:
        """Those of the run's calls, where few are allowed; of one replayed case none is left out."""
        if not self.settings.few_shapes or self.settings.replay is not None:
            return None
        return self.forms.setdefault((parameter.operation, parameter.device, parameter.dtype), Forms())

    # -- what was found -------------------------------------------------------------------------------------

    def outcome(self, item: pytest.Item, error: BaseException | None) -> Outcome:
        """The result event of a test from the exception that ended it."""
        return outcome_of(item, error, self.selection)

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
                **({"clauses": list(self.selection.clauses)} if self.selection.clauses else {}),
                "shapes": self.selection.shapes,
                **({"replay": Path(self.selection.replay).name} if self.selection.replay else {}),
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
