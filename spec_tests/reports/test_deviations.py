"""Deviation files are read strictly, and an entry holds only where it says so."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

import pytest

from detr_conformance.reporting.deviations import Deviation, DeviationError, load_deviations

ENTRY = {
    "clause": '"AB-1"',
    "kind": '"bug"',
    "reason": '"rounds"',
    "link": '"https://example.org/1"',
    "versions": '">=5.0,<6"',
}


def written(path: Path, **changes: str | None) -> Path:
    keys = {**ENTRY, **changes}
    lines = [f"{key} = {value}" for key, value in keys.items() if value is not None]
    path.write_text("\n".join(["[[deviation]]", *lines]))
    return path


def only(path: Path) -> Deviation:
    (entry,) = load_deviations(path, "my-kernel")
    return entry


def test_an_entry_is_read(tmp_path: Path) -> None:
    entry = only(written(tmp_path / "d.toml", operations='["ms_deform_attn"]', dtypes='["float16"]'))
    assert (entry.clause, entry.kind, entry.reason) == ("AB-1", "bug", "rounds")
    assert entry.operations == ("ms_deform_attn",)
    assert entry.dtypes == ("float16",)


def test_an_entry_may_be_about_some_targets(tmp_path: Path) -> None:
    path = written(tmp_path / "d.toml", targets='["my-kernel", "its-twin"]')
    assert only(path).targets == ("my-kernel", "its-twin")
    assert load_deviations(path, "another") == []


def test_shipped_files_speak_of_targets_that_exist() -> None:
    folder = Path(str(files("detr_conformance") / "deviations"))
    known = {point.name for point in entry_points(group="detr_spec.targets")}
    for path in folder.glob("*.toml"):
        named = {name for entry in tomllib.loads(path.read_text())["deviation"] for name in entry["targets"]}
        assert named <= known, path.name
        for name in named:
            assert load_deviations(path, name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reason": None}, "'reason' is missing"),
        ({"link": '""'}, "'link' is empty"),
        ({"kind": '"feature"'}, 'must be "bug" or "by-design"'),
        ({"versions": '"five"'}, "not a version range"),
        ({"dtype": '"float16"'}, "unknown key 'dtype'"),
        ({"dtypes": '["half"]'}, "unknown name 'half'"),
        ({"operations": '"ms_deform_attn"'}, "must be a list"),
    ],
)
def test_an_ill_formed_entry_is_an_error(tmp_path: Path, changes: dict[str, str | None], said: str) -> None:
    with pytest.raises(DeviationError, match=said) as caught:
        load_deviations(written(tmp_path / "d.toml", **changes), "my-kernel")
    assert "d.toml, entry 1" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["[deviation]\n", "[[deviations]]\nclause = 'AB-1'\n", "clause = 'AB-1'", "[[[", "deviation = [1]"],
)
def test_another_document_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "d.toml"
    path.write_text(text)
    with pytest.raises(DeviationError, match=r"d\.toml"):
        load_deviations(path, "my-kernel")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviationError, match="No such file"):
        load_deviations(tmp_path / "none.toml", "my-kernel")


@pytest.mark.parametrize(
    ("versions", "version", "holds"),
    [
        (">=5.0,<6", "5.23.0", True),
        (">=5.0,<6", "5.24.0.dev0", True),
        (">=5.0,<6", "6.0", False),
        (">=5.0,<6", None, False),
        (">=5.0,<6", "main", False),
        ("", None, True),
    ],
)
def test_an_entry_holds_for_its_versions(tmp_path: Path, versions: str, version: str | None, holds: bool) -> None:
    entry = only(written(tmp_path / "d.toml", versions=f'"{versions}"'))
    assert (entry.version_problem(version) is None) == holds


def test_a_target_without_a_version_is_told_to_give_one(tmp_path: Path) -> None:
    assert "set Target(version=...)" in (only(written(tmp_path / "d.toml")).version_problem(None) or "")


def test_an_entry_covers_what_it_names(tmp_path: Path) -> None:
    narrow = only(written(tmp_path / "n.toml", dtypes='["float16"]'))
    assert narrow.covers({"operation": "ms_deform_attn", "dtype": "float16"})
    assert not narrow.covers({"operation": "ms_deform_attn", "dtype": "float32"})
    assert not narrow.covers({})
    assert only(written(tmp_path / "w.toml")).covers({})
