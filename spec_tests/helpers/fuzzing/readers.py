"""Everything that reads a file or a line from outside, with valid content to damage."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from detr_conformance.evidence.clauses import load_chapters
from detr_conformance.harness.case import Case
from detr_conformance.harness.case_files import CaseFileError, read_case, write_case
from detr_conformance.isolation.client import RaisedThere
from detr_conformance.isolation.plain import Given, Plain
from detr_conformance.isolation.process import Died, NotDone
from detr_conformance.recording.calls import read_calls, write_call
from detr_conformance.reporting.deviations import DeviationError, load_deviations
from detr_conformance.reporting.json_file import FileError
from detr_conformance.reporting.pages.badge import badge_svg
from detr_conformance.reporting.pages.history import implementations
from detr_conformance.reporting.pages.report_page import web_page
from detr_conformance.reporting.pages.site import implementation_page
from detr_conformance.reporting.pages.site_matrix import causes, chapter_matrices
from detr_conformance.reporting.report_file import read_reports
from detr_conformance.vectors.export import MANIFEST, Wanted, collect
from detr_conformance.vectors.reading import VectorsError, read_vectors
from detr_conformance.vectors.store import StoreError, parse
from detr_conformance.vectors.verify import Outputs, events
from helpers.commands import run
from helpers.fuzzing.trying import Reader
from helpers.places import ROOT
from helpers.reports.shown_reports import failing_report, passing_report

DEVIATIONS = ROOT / "conformance" / "detr_conformance" / "deviations" / "torch.toml"


class Answering:
    """In the place of a runner's process: one right answer, damaged."""

    running = True

    def __init__(self, folder: Path, answer: bytes) -> None:
        self.folder, self.answer, self.numbers = tempfile.TemporaryDirectory(dir=folder.parent), answer, count(1)
        self.folder.name = str(folder)  # the one that is looked at afterwards

    def ask(self, message: Any, times: int = 1) -> Any:
        try:
            return json.loads(self.answer)
        except (ValueError, RecursionError) as error:
            raise Died("no message", "no message") from error

    def end(self) -> None: ...

    stop = end


def answer() -> dict[str, bytes]:
    """What a runner says to a call of one argument, and the file that it writes."""
    described = {"id": "r", "storage": "o", "dtype": "float32", "shape": [2, 3], "stride": [3, 1], "offset": 0}
    said = {
        "message": "done",
        "id": 1,
        "results": [{"dict": [["output", {"tensor": "r"}], ["scale", {"float": "inf"}]]}],
        "tensors": [described],
        "storages": {"o": 24},
    }
    return {"answer.json": json.dumps(said).encode(), "1.out": save({"o": torch.zeros(24, dtype=torch.uint8)})}


def take_over(folder: Path) -> None:
    line = (folder / "answer.json").read_bytes()
    with tempfile.TemporaryDirectory(dir=folder) as there:
        process = Answering(Path(there), line)
        (Path(there) / "1.out").write_bytes((folder / "1.out").read_bytes())
        Plain(process).run([{"do": "call"}], {"x": Given.of(torch.zeros(4))}, 0)  # type: ignore[arg-type]


def call() -> Case:
    shapes = torch.tensor(((2, 3), (1, 2)))
    tensors = {
        "value": torch.randn(1, 8, 2, 2),
        "spatial_shapes": shapes,
        "level_start_index": torch.tensor((0, 6)),
        "sampling_locations": torch.rand(1, 3, 2, 2, 2, 2),
        "attention_weights": torch.rand(1, 3, 2, 2, 2),
    }
    return Case(tensors, note="a call")


def module_call() -> Case:
    from detr_reference import FeedForward, FeedForwardConfig

    config = FeedForwardConfig(embed_dim=4, feedforward_dim=6)
    state = FeedForward(config).state_dict()
    settings = {name: json.dumps(value) for name, value in vars(config).items()}
    parameters = {f"parameter:{name}": tensor for name, tensor in state.items()}
    return Case({"x": torch.randn(1, 3, 4), **parameters}, options=settings)


def content_of(write: Any, *arguments: Any, **named: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path: Path = write(Path(folder), *arguments, **named)
        return path.read_bytes()


def report() -> bytes:
    """Of a run of few tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        run("check", "reference", "--operation", "refine_boxes", "--clause", "SEL-41", "--json", path)
        return path.read_bytes()


def compared(folder: Path) -> None:
    """`detr-spec diff` has an exit code, and no traceback."""
    result = run("diff", folder / "report.json", folder / "report.json")
    if result.exit_code == 2:
        raise VectorsError(result.output)


def shown(folder: Path) -> None:
    """A page of a report and of its case, and the history of both reports."""
    try:
        before, after = (list(read_reports(folder / name).values()) for name in ("before.json", "after.json"))
    except FileError as error:
        raise VectorsError(str(error)) from error
    for report in after:
        for entry in report["clauses"].values():
            entry["case_file"] = "case.safetensors"
    chapters = load_chapters()
    web_page(after, chapters, folder).encode()
    found = implementations([*(("before", each) for each in before), *(("after", each) for each in after)], chapters)
    chapter_matrices(found, chapters)
    causes(found)
    for implementation in found:
        implementation_page(implementation, chapters, {"mutants": False, "deviations": False, "documentation": None})
        badge_svg(implementation)


def judged(folder: Path) -> None:
    vectors = read_vectors(folder)
    list(events(vectors, Outputs.of(folder, vectors), "mine"))


def vectors_folder() -> dict[str, bytes]:
    """Vectors of a small operation, and the right outputs beside them."""
    from detr_conformance.operations import OPERATIONS, resolve
    from detr_conformance.vectors.replay import subjects, write_outputs

    wanted = Wanted("smoke", ("refine_boxes",), ("float32",))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        collect(wanted).write(folder, npz=False)
        reference = resolve(OPERATIONS["refine_boxes"].reference)
        write_outputs(folder, subjects("refine_boxes", reference, wanted.dtypes), read_vectors(folder))
        written = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    listed = [MANIFEST, *json.loads(written[MANIFEST])["files"]]
    outputs = [name for name in written if name not in listed]
    return {name: written[name] for name in (*listed, outputs[0])}


def parsed(announced: dict[str, Any], name: str) -> Any:
    """The tensors of a file whose sum nobody has looked at."""
    return lambda folder: parse(folder / name, (folder / name).read_bytes(), announced, others=True)


def readers() -> Iterator[Reader]:
    """One after another, as making the valid content takes seconds."""
    case = content_of(write_case, call(), clause="MSDA-1", test="test_x.py::test_y")
    yield Reader("case file", {"c": case}, lambda folder: void(read_case(folder / "c")), (CaseFileError,))
    recorded = content_of(write_call, "ms_deform_attn", call(), "first")
    module = content_of(write_call, "feed_forward", module_call(), "first")
    calls = {"a.safetensors": recorded, "b.safetensors": module}
    yield Reader("recorded calls", calls, lambda folder: void(read_calls(folder)), (CaseFileError,))
    deviations = {"d.toml": DEVIATIONS.read_bytes()}
    yield Reader(
        "deviations", deviations, lambda folder: void(load_deviations(folder / "d.toml", "x")), (DeviationError,)
    )
    yield Reader("runner's answer", answer(), take_over, (Died, NotDone, RaisedThere))
    yield Reader("report", {"report.json": report()}, compared, (VectorsError,))
    planted = json.dumps(failing_report(2)).encode()
    files = {"before.json": json.dumps(passing_report()).encode(), "after.json": planted, "case.safetensors": case}
    yield Reader("pages of reports", files, shown, (VectorsError,))
    folder = vectors_folder()
    manifest = json.loads(folder[MANIFEST])
    yield Reader("vectors and outputs", folder, judged, (VectorsError,))
    for name in manifest["files"]:
        announced = {key: each for key, each in manifest["tensors"].items() if each["file"] == name}
        yield Reader("tensors of vectors", {name: folder[name]}, parsed(announced, name), (StoreError,))
        break


def void(_: Any) -> None: ...
