"""The pytest plugin: `--detr-target` and its companions, one parameter a device and dtype, and the event stream.

Loaded into every pytest run where detr-spec is installed, so it imports nothing heavy until a target is named.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from detr_conformance.running.session import Session

EXIT_CANNOT_TELL = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("detr", "detr-spec conformance")
    group.addoption(
        "--detr-target",
        metavar="TARGET",
        help="implementation to check: name, module:attribute or file.py:attribute",
    )
    group.addoption("--detr-runner", metavar="CMD", help="in its place: the command that starts a runner to check")
    group.addoption(
        "--detr-operation",
        metavar="ID",
        action="append",
        default=[],
        help="check only this operation (repeatable)",
    )
    group.addoption(
        "--detr-clause", metavar="ID", action="append", default=[], help="check only this clause (repeatable)"
    )
    group.addoption(
        "--detr-profile",
        choices=("smoke", "standard", "thorough", "full-size", "training"),
        default="standard",
        help="how many cases; thorough is random, full-size and training run tests of their own",
    )
    group.addoption(
        "--detr-shapes",
        choices=("any", "few"),
        default="any",
        help="few: calls of few shapes, for what is compiled anew for each",
    )
    group.addoption("--detr-device", metavar="D", help="run on this device only")
    group.addoption("--detr-dtype", metavar="T", help="run in this dtype only")
    group.addoption("--detr-seed", metavar="N", type=int, default=0, help="seed of all cases")
    group.addoption("--detr-json", metavar="F", help="write the JSON report here")
    group.addoption("--detr-cases", metavar="DIR", default="detr-cases", help="where failing cases are saved")
    group.addoption("--detr-calls", metavar="DIR", help="judge the recorded calls of this folder, no others")
    group.addoption("--detr-replay", metavar="F", help="run only the case in this file")
    group.addoption("--detr-isolate", action="store_true", help="run the target in a process of its own")
    group.addoption("--detr-time-limit", metavar="SECONDS", type=float, default=60.0, help="of a call when isolated")
    group.addoption(
        "--detr-memory-limit", metavar="GIB", type=float, default=0.0, help="of the target's process when isolated"
    )
    group.addoption("--detr-events", metavar="F", help="append one JSON event a line to this file")
    group.addoption("--detr-done", metavar="F", help="leave out the tests whose names stand in this file, one a line")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "covers(*clauses): the clauses of the spec that a test decides")
    target, runner = config.getoption("--detr-target"), config.getoption("--detr-runner")
    if not target and runner is None:
        return
    if target and runner is not None:
        raise pytest.UsageError("--detr-runner CMD stands in the place of --detr-target TARGET; give one of them")
    from detr_conformance.running.session import Session, SetupError

    try:
        config.stash[SESSION] = Session.from_options(config.option)
    except SetupError as error:
        _tell(config, {"event": "error", "message": str(error)})
        pytest.exit(f"cannot tell: {error}", returncode=EXIT_CANNOT_TELL)
    if _is_controller(config):
        config.pluginmanager.register(Reporter(config), "detr-reporter")


SESSION: pytest.StashKey[Session] = pytest.StashKey()


def _is_controller(config: pytest.Config) -> bool:
    return not hasattr(config, "workerinput")


def _tell(config: pytest.Config, event: dict[str, Any]) -> None:
    path = config.getoption("--detr-events")
    if path and _is_controller(config):
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(event, allow_nan=False) + "\n")


# -- collection -----------------------------------------------------------------------------------------------


class Suite(pytest.Package):
    """`detr_conformance.suite` as people ask for it; its tests lie by topic, in `detr_conformance.topics`."""

    def collect(self) -> Generator[pytest.Collector | pytest.Item, None, None]:
        yield pytest.Package.from_parent(self, path=self.path.with_name("topics"))


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Hands the folder of topics over when the suite is collected."""
    if path == Path(__file__).with_name("suite"):
        return Suite.from_parent(parent, path=path)
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One parameter for each device and dtype that the target claims and the test applies to."""
    test = getattr(metafunc.function, "suite_test", None)
    if test is None:
        return
    session = metafunc.config.stash.get(SESSION, None)
    if session is None:
        raise pytest.UsageError(
            "the conformance suite needs --detr-target TARGET, or --detr-runner CMD, the implementation to check"
        )
    from detr_conformance.running.trial import operations_of

    operations = operations_of(metafunc.module)
    parameters = [parameter for operation in operations for parameter in session.parameters(operation, test)]
    ids = [p.id if len(operations) == 1 else f"{p.operation}-{p.id}" for p in parameters]
    metafunc.parametrize("subject", parameters, ids=ids, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out operations and tests that were not asked for."""
    session = config.stash.get(SESSION, None)
    if session is None:
        return
    done = _lines(config.getoption("--detr-done"))
    kept = [item for item in items if not _is_suite_test(item) or _is_asked(session, item, done)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
    for item in items:
        if _is_suite_test(item):
            item.add_marker(pytest.mark.covers(*_suite_test(item).clauses))


def _is_asked(session: Session, item: pytest.Item, done: set[str]) -> bool:
    name = _name(item.nodeid)
    return name not in done and session.selects(_operation(item), name, _suite_test(item))


def _lines(path: str | None) -> set[str]:
    return set(Path(path).read_text(encoding="utf-8").splitlines()) if path else set()


def _is_suite_test(item: pytest.Item) -> bool:
    return hasattr(getattr(item, "function", None), "suite_test")


def _suite_test(item: pytest.Item) -> Any:
    return item.function.suite_test  # type: ignore[attr-defined]


def _name(nodeid: str) -> str:
    """file.py::test[parameter], without the folder."""
    return Path(nodeid).name


def _operation(item: pytest.Item) -> str:
    return str(item.callspec.params["subject"].operation)  # type: ignore[attr-defined]


# -- running --------------------------------------------------------------------------------------------------


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> Any:
    """The target's operation on one device and dtype."""
    parameter = request.param
    if parameter.absent:
        pytest.skip(parameter.absent)
    return request.config.stash[SESSION].subject(parameter)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attaches to each report of a suite test what the JSON report needs."""
    report = yield
    session = item.config.stash.get(SESSION, None)
    if session is None or not _is_suite_test(item):
        return report
    if report.when == "call" or (report.when == "setup" and not report.passed):
        outcome = session.outcome(item, call.excinfo.value if call.excinfo else None)
        report.user_properties.append(("detr", outcome.event))
        if outcome.text is not None:
            report.longrepr = outcome.text
    return report


class Reporter:
    """Writes events and the JSON report; in the controlling process only."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.session = config.stash[SESSION]
        self.events: list[dict[str, Any]] = []
        self.clauses: dict[str, tuple[str, ...]] = {}
        self.started = time.monotonic()
        self.failed = 0
        self._send(self.session.start_event())

    def _send(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        _tell(self.config, event)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:
            self.clauses = {item.nodeid: _suite_test(item).clauses for item in session.items if _is_suite_test(item)}
            self._send({"event": "collected", "tests": len(self.clauses)})

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """With --jobs the controller itself collects nothing."""
        from detr_conformance.running.trial import clauses_by_test_name

        if not self.clauses:
            names = clauses_by_test_name()
            self.clauses = {nodeid: names.get(_name(nodeid).partition("[")[0], ()) for nodeid in ids}
            self._send({"event": "collected", "tests": len(ids)})

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        self._send({"event": "running", "test": _name(nodeid), "clauses": list(self.clauses.get(nodeid, ()))})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = [event for name, event in report.user_properties if name == "detr"]
        self.failed += report.failed
        if found and (report.when == "call" or not report.passed):
            self._send({**found[0], "seconds": round(report.duration, 4)})  # type: ignore[dict-item]
        elif not found and report.failed and report.nodeid in self.clauses:
            self._send(self._crash(report))

    def _crash(self, report: pytest.TestReport) -> dict[str, Any]:
        """A worker process of --jobs died, as on an illegal memory access, and took its report with it."""
        return {
            "event": "result",
            "test": _name(report.nodeid),
            "clauses": list(self.clauses[report.nodeid]),
            "outcome": "fail",
            "died": True,
            "message": "the process died in this test",
        }

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        seconds = round(time.monotonic() - self.started, 2)
        stopped = bool(self.config.getoption("maxfail")) and self.failed >= self.config.getoption("maxfail")
        self._send({"event": "finish", "exit": int(exitstatus), "seconds": seconds, "stopped": stopped})
        if path := self.config.getoption("--detr-json"):
            self.session.write_report(self.events, Path(path))
