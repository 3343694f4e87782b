"""Known deviations of an implementation, declared in TOML so that a report can tell known from new.

[[deviation]]
clause = "MSDA-41"
kind = "by-design"            # or "bug"
reason = "CPU grid_sample returns NaN for a NaN location"
link = "https://github.com/pytorch/pytorch/issues/24823"
versions = ">=5.0,<6"         # of the target; "" for a target without versions
operations = ["ms_deform_attn"]   # optional: only there
dtypes = ["float16"]              # optional: only then
targets = ["my-kernel"]           # optional, where several targets share the file: only these
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from detr_conformance.operations import OPERATIONS
from detr_conformance.target import DTYPES

KINDS = ("bug", "by-design")
REQUIRED = ("clause", "kind", "reason", "link", "versions")
NARROWING = {"operations": tuple(OPERATIONS), "dtypes": DTYPES}
OPTIONAL = (*NARROWING, "targets")


class DeviationError(Exception):
    """A deviation file that cannot be used; the message says where and why."""


@dataclass(frozen=True)
class Deviation:
    """One entry. Empty `operations`, `dtypes` or `targets` stand for all of them."""

    clause: str
    kind: str
    reason: str
    link: str
    versions: SpecifierSet
    operations: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()

    def covers(self, result: Mapping[str, Any]) -> bool:
        """Whether the entry speaks of this result of a test of its clause."""
        return (not self.operations or result.get("operation") in self.operations) and (
            not self.dtypes or result.get("dtype") in self.dtypes
        )

    def version_problem(self, version: str | None) -> str | None:
        """Why the entry does not hold for the target's version, or None if it does."""
        if not self.versions:
            return None
        if version is None:
            return (
                f'the deviation is declared for versions "{self.versions}", but the target gives no version: '
                "set Target(version=...)"
            )
        try:
            held = self.versions.contains(Version(version), prereleases=True)
        except InvalidVersion:
            return f'the target\'s version {version!r} cannot be compared with "{self.versions}" (PEP 440)'
        if held:
            return None
        return (
            f'the deviation is declared for versions "{self.versions}" and the target is {version}: '
            "look again, then widen `versions` or remove the entry"
        )


def load_deviations(path: str | Path, target: str) -> list[Deviation]:
    """Read a deviation file: its entries for this target.

    Raises:
        DeviationError: no such file, not TOML, or an entry with a missing, unknown or ill-formed key.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DeviationError(f"cannot read the deviation file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DeviationError(f"the deviation file {path} is not valid TOML: {error}") from error
    entries = document.pop("deviation", [])
    if document or not isinstance(entries, list):
        stray = ", ".join(map(repr, document)) or "'deviation' as a single table"
        raise DeviationError(f"{path}: write entries as [[deviation]] tables; found {stray}")
    declared = [_entry(f"{path}, entry {number}", entry) for number, entry in enumerate(entries, start=1)]
    return [entry for entry in declared if not entry.targets or target in entry.targets]


def _entry(where: str, entry: Any) -> Deviation:
    if not isinstance(entry, dict):
        raise DeviationError(f"{where}: write entries as [[deviation]] tables")
    for key in entry:
        if key not in (*REQUIRED, *OPTIONAL):
            raise DeviationError(f"{where}: unknown key {key!r}; known: {', '.join((*REQUIRED, *OPTIONAL))}")
    for key in REQUIRED:
        if not isinstance(entry.get(key), str):
            raise DeviationError(f"{where}: the key {key!r} is missing or not a string")
        if not entry[key].strip() and key != "versions":
            raise DeviationError(f"{where}: the key {key!r} is empty")
    if entry["kind"] not in KINDS:
        raise DeviationError(f'{where}: kind is {entry["kind"]!r}; it must be "bug" or "by-design"')
    try:
        versions = SpecifierSet(entry["versions"])
    except InvalidSpecifier as error:
        raise DeviationError(
            f'{where}: versions {entry["versions"]!r} is not a version range such as ">=5.0,<6" (PEP 440)'
        ) from error
    narrowed = {key: _names(where, key, entry.get(key, []), known) for key, known in NARROWING.items()}
    return Deviation(
        clause=entry["clause"],
        kind=entry["kind"],
        reason=entry["reason"],
        link=entry["link"],
        versions=versions,
        targets=_strings(where, "targets", entry.get("targets", [])),
        **narrowed,
    )


def _names(where: str, key: str, given: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    names = _strings(where, key, given)
    for name in names:
        if name not in known:
            raise DeviationError(f"{where}: unknown name {name!r} in {key}; known: {', '.join(known)}")
    return names


def _strings(where: str, key: str, given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or any(not isinstance(name, str) for name in given):
        raise DeviationError(f"{where}: {key} must be a list of strings")
    return tuple(given)
