"""From what a user types as TARGET to Target objects. Every error says in a line what to do."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from importlib.metadata import Distribution, EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path
from types import ModuleType

from packaging.requirements import Requirement

from detr_conformance.operations import OPERATIONS
from detr_conformance.target import Target, TargetError

GROUP = "detr_spec.targets"


def installed_targets() -> dict[str, EntryPoint]:
    """The entry points of the group `detr_spec.targets` by name, sorted."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, entry)
    return dict(sorted(found.items()))


def resolve_names(spec: str) -> list[str]:
    """The targets that `spec` stands for, each again a valid TARGET. Imports nothing of the target's.

    An installed name is itself, the beginning of installed names is all of them, and `module:attribute` or
    `file.py:attribute` is itself.

    Raises:
        TargetError: no such name or file.
    """
    place, attribute = _split(spec)
    if attribute:
        if _is_file(place) and not Path(place).is_file():
            raise TargetError(f"there is no file {place!r} (looked in {Path.cwd()})")
        return [spec]
    names = installed_targets()
    if spec in names:
        return [spec]
    if spec and (matches := [name for name in names if name.startswith(spec)]):
        return matches
    raise TargetError(_unknown(spec, list(names)))


def load_targets(spec: str) -> list[Target]:
    """Import the targets that `spec` stands for.

    Raises:
        TargetError: it cannot be found, raises while it is imported, or is not a Target.
    """
    return [load_target(name) for name in resolve_names(spec)]


def load_target(name: str) -> Target:
    """Import one target, by a name that `resolve_names` gave."""
    place, attribute = _split(name)
    if not attribute:
        entry = installed_targets()[name]
        module = _import_module(entry.module, name, entry.dist)
        return _with_absolute_deviations(_target_in(module, entry.attr, name), module)
    module = _import_file(Path(place)) if _is_file(place) else _import_from_here(place)
    return _with_absolute_deviations(_target_in(module, attribute, place), module)


def _split(spec: str) -> tuple[str, str]:
    """("file.py", "attribute"), "" for a plain name; the colon of a drive separates nothing."""
    place, colon, attribute = spec.rpartition(":")
    if not colon or "/" in attribute or "\\" in attribute:
        place, attribute = spec, ""
    return place, attribute.strip()


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or os.sep in place


def _unknown(spec: str, names: list[str]) -> str:
    if _is_file(spec):
        return f"{spec!r} names no Target in that file; write {spec}:target if the variable is called so"
    if spec.endswith(":"):
        return f"{spec!r} ends in a colon; write {spec}target if the variable is called so"
    close = difflib.get_close_matches(spec, names, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "`detr-spec targets` lists the installed ones."
    return f"no target {spec!r}: {hint} Your own is package.module:attribute or path/to/file.py:attribute"


def _import_file(path: Path) -> ModuleType:
    """Run a file as a module of a private name, with its folder importable, as if it were run as a script."""
    path = path.resolve()
    _make_importable(path.parent)
    name = f"_detr_target_{path.stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    loaded_from = importlib.util.spec_from_file_location(name, path)
    if loaded_from is None or loaded_from.loader is None:
        raise TargetError(f"{path.name} is not a Python file; TARGET is path/to/file.py:attribute")
    module = importlib.util.module_from_spec(loaded_from)
    sys.modules[name] = module  # dataclasses and torch.compile look their module up there
    try:
        loaded_from.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise TargetError(_import_failure(path.name, str(path), error, None)) from error
    return module


def _import_from_here(module: str) -> ModuleType:
    """Import a module that is installed or lies in the current directory, as `python -m` would find it."""
    _make_importable(Path.cwd())
    return _import_module(module, module, None)


def _import_module(module: str, shown: str, owner: Distribution | None) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if owner is None and error.name and f"{module}.".startswith(f"{error.name}."):
            raise TargetError(f"no module {error.name!r}: is it installed, or importable from {Path.cwd()}?") from error
        raise TargetError(_import_failure(shown, module, error, owner)) from error
    except (Exception, SystemExit) as error:
        raise TargetError(_import_failure(shown, module, error, owner)) from error


def _make_importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _import_failure(shown: str, module: str, error: BaseException, owner: Distribution | None) -> str:
    """One line: what was raised, and the line of the target's own code that it passed through last."""
    where = _own_line(module, error)
    if isinstance(error, TargetError):
        return f"{shown}{where}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package != error.name and sys.modules.get(package):
            return f"{shown}{where} imports {error.name!r}, which does not exist"
        return f"{shown}{where} needs the package {package!r}, which is not installed{_install(package, owner)}"
    said = " ".join(str(error).split())
    return f"{shown}{where} raises {type(error).__name__} when imported" + (f": {said}" if said else "")


def _own_line(module: str, error: BaseException) -> str:
    """The deepest line of the error that is the user's own: no library's, and not ours."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f" ({Path(error.filename or module).name}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (__file__, importlib.__file__) and not frame.filename.startswith("<")
    ]
    libraries = (*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), str(files("detr_conformance")))
    own = [frame for frame in frames if not frame.filename.startswith(libraries)] or frames[:1]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _install(package: str, owner: Distribution | None) -> str:
    """The smallest extra of the target's own distribution that brings the package, if there is one."""
    if owner is None:
        return ""
    optional = [needed for needed in map(Requirement, owner.requires or []) if needed.marker]
    brought = {
        extra: [needed.name for needed in optional if needed.marker and needed.marker.evaluate({"extra": extra})]
        for extra in owner.metadata.get_all("Provides-Extra") or []
    }
    fitting = [extra for extra, packages in brought.items() if package in packages]
    if not fitting:
        return ""
    return f'; pip install "{owner.name}[{min(fitting, key=lambda extra: len(brought[extra]))}]"'


def _target_in(module: ModuleType, attribute: str, shown: str) -> Target:
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise TargetError(_missing(module, attribute, shown))
        found = getattr(found, part)
    if isinstance(found, Target):
        return found
    raise TargetError(_not_a_target(found, attribute, shown))


def _missing(module: ModuleType, attribute: str, shown: str) -> str:
    targets = [name for name, value in vars(module).items() if isinstance(value, Target)]
    if targets:
        there = ", ".join(f"{shown}:{name}" for name in targets)
        return f"{shown} has no {attribute!r}; its targets are: {there}"
    return f"{shown} has no {attribute!r}, and no Target at all; write\n{_example(module, 'my_function')}"


def _not_a_target(found: object, attribute: str, shown: str) -> str:
    kind = "a function" if inspect.isroutine(found) else f"a {type(found).__name__}"
    if inspect.isclass(found):
        kind = "a class"
    function = attribute if callable(found) else "my_function"
    return f"{shown}:{attribute} is {kind}, not a Target; write\n{_example(shown, function)}"


def _example(module: ModuleType | str, function: str) -> str:
    place = module if isinstance(module, str) else Path(module.__file__ or module.__name__).name
    return (
        "    from detr_conformance import Target\n"
        f'    target = Target(name="my-kernel", provides={{"{next(iter(OPERATIONS))}": {function}}})\n'
        f"    # then: detr-spec check {place}:target"
    )


def _with_absolute_deviations(target: Target, module: ModuleType) -> Target:
    """A relative path of a deviation file counts from the folder of the file that declares the target."""
    if target.deviations is None or Path(target.deviations).is_absolute() or not module.__file__:
        return target
    return dataclasses.replace(target, deviations=Path(module.__file__).resolve().parent / target.deviations)
