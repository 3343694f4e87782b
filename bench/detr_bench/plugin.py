"""The pytest plugin of the bench suite: `--detr-bench-target` and its companions, one test a figure.

Loaded into every pytest run where detr-spec is installed, so it imports nothing heavy until a target is named.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from detr_bench.workloads import DIRECTIONS, TABLE

if TYPE_CHECKING:
    from detr_bench.plan import Row
    from detr_bench.session import Session

EXIT_CANNOT_TELL = 2
COLUMNS = ("target", "operation", "device", "dtype", "workload", "direction")

SESSION: pytest.StashKey[Session] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("detr-bench", "detr-spec benchmarks")
    several: dict[str, Any] = {"action": "append", "default": []}
    group.addoption("--detr-bench-target", metavar="TARGET", help="implementation to measure (repeatable)", **several)
    group.addoption(
        "--detr-bench-operation", choices=tuple(TABLE), help="measure this operation (repeatable)", **several
    )
    group.addoption("--detr-bench-workload", metavar="NAME", help="measure this workload (repeatable)", **several)
    group.addoption("--detr-bench-direction", choices=DIRECTIONS, help="measure this direction (repeatable)", **several)
    group.addoption("--detr-bench-dtype", metavar="T", help="measure in this dtype (repeatable)", **several)
    group.addoption("--detr-bench-device", metavar="D", help="measure on this device")
    group.addoption("--detr-bench-threads", metavar="N", type=int, help="threads of a CPU")
    group.addoption("--detr-bench-seconds", metavar="S", type=float, default=3.0, help="about how long a figure takes")
    group.addoption("--detr-bench-profile", default="standard", help="profile of the check that comes first")
    group.addoption("--detr-bench-checked", metavar="F", help="verdicts of checks that this run already made")
    group.addoption("--detr-bench-events", metavar="F", help="append one JSON event a line to this file")


def pytest_configure(config: pytest.Config) -> None:
    options = config.option
    if not options.detr_bench_target:
        return
    from detr_conformance.target import TargetError

    try:
        config.stash[SESSION] = _session(options)
    except TargetError as error:
        pytest.exit(f"cannot tell: {error}", returncode=EXIT_CANNOT_TELL)


def _session(options: Any) -> Session:
    """Loads the targets, and what is known of them already."""
    import torch

    from detr_bench.gate import Verdict
    from detr_bench.plan import Asked
    from detr_bench.session import Session
    from detr_conformance.running.loaders import load_target, resolve_names

    asked = Asked(
        operations=tuple(options.detr_bench_operation),
        workloads=tuple(options.detr_bench_workload),
        directions=tuple(options.detr_bench_direction) or Asked.directions,
        device=options.detr_bench_device,
        dtypes=tuple(options.detr_bench_dtype) or Asked.dtypes,
        seconds=options.detr_bench_seconds,
        profile=options.detr_bench_profile,
    )
    if options.detr_bench_threads:
        torch.set_num_threads(options.detr_bench_threads)
    names = [name for typed in options.detr_bench_target for name in resolve_names(typed)]
    session = Session({name: load_target(name) for name in names}, asked)
    if options.detr_bench_checked:
        entries = json.loads(Path(options.detr_bench_checked).read_text(encoding="utf-8"))
        session.verdicts = {verdict.unit: verdict for verdict in map(Verdict.from_dict, entries)}
    return session


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each figure; the clock of its device is pytest-benchmark's timer."""
    if not _is_ours(metafunc.module):
        return
    session = metafunc.config.stash.get(SESSION, None)
    if session is None:
        raise pytest.UsageError("the bench suite needs --detr-bench-target TARGET, the implementation to measure")
    from detr_bench.devices import clock_of
    from detr_bench.plan import units

    parameters = []
    for name, target in session.targets.items():
        for unit in units(name, target, session.asked):
            mark = {"timer": clock_of(unit.device)}
            for row in metafunc.module.rows(unit, target, session.asked):
                values = (name, unit.operation, unit.device, unit.dtype, row.workload, row.direction)
                parameters.append(pytest.param(*values, marks=pytest.mark.benchmark(group=row.group, **mark)))
    metafunc.parametrize(COLUMNS, parameters)


def _is_ours(module: Any) -> bool:
    return str(getattr(module, "__name__", "")).startswith("detr_bench.suite.")


@pytest.fixture
def detr_bench_row(target: str, operation: str, device: str, dtype: str, workload: str, direction: str) -> Row:
    """The figure that a test of the suite measures."""
    from detr_bench.gate import Unit
    from detr_bench.plan import Row

    return Row(Unit(target, operation, device, dtype), workload, direction)


@pytest.fixture
def detr_bench(request: pytest.FixtureRequest) -> Any:
    """The session, which measures."""
    return request.config.stash[SESSION]


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    if SESSION in config.stash:
        from detr_bench.session import machine

        told = machine(machine_info)
        machine_info.clear()
        machine_info.update(told)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    if SESSION in config.stash:
        output_json["detr_spec"] = config.stash[SESSION].section()


# -- events for `detr-spec bench` -----------------------------------------------------------------------------


def _tell(config: pytest.Config, **event: Any) -> None:
    if path := config.getoption("--detr-bench-events"):
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(event, allow_nan=False) + "\n")


def pytest_collection_finish(session: pytest.Session) -> None:
    _tell(session.config, event="collected", tests=len(session.items))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    _tell(item.config, event="running", test=item.name, clauses=[])
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A figure that may not be told is one line, not a traceback."""
    report = yield
    if call.excinfo is None or not _is_ours(getattr(item, "module", None)):
        return report
    from detr_bench.agreement import Disagrees
    from detr_bench.session import NoSpeed, Unattainable

    error = call.excinfo.value
    wrong = isinstance(error, NoSpeed | Disagrees | Unattainable)
    told = str(error) if wrong else f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if wrong:
        report.longrepr = told
    params = item.callspec.params  # type: ignore[attr-defined]
    row = {name: params[name] for name in COLUMNS}
    _tell(item.config, event="refused", wrong=wrong, message=told, **row)
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    _tell(session.config, event="finish", exit=int(exitstatus))
