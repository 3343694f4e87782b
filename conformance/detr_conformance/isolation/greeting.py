"""What a runner says of itself when it is started, checked, and made a target of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from detr_conformance.isolation.process import Died, Refused
from detr_conformance.target import Target, TargetError

Hello = dict[str, Any]
REQUIRED = {"holds": bool, "name": str, "operations": dict, "devices": list, "dtypes": list, "features": list}
OPTIONAL = {"version": str, "variants": dict, "deviations": str, "stages": dict}


def greeting(start: Callable[[], Hello]) -> Hello:
    """The `hello` of a runner that is started now.

    Raises:
        TargetError: it does not start, or says something else.
    """
    try:
        said = start()
    except Refused as refused:
        raise TargetError(str(refused)) from refused
    except Died as died:
        raise TargetError("\n".join(filter(None, (died.message, died.detail)))) from died
    for name, kind in REQUIRED.items():
        if name not in said:
            raise TargetError(f"the runner's hello lacks {name!r}")
        _check(name, said[name], kind)
    for name, kind in OPTIONAL.items():
        if said.setdefault(name, None) is not None:
            _check(name, said[name], kind)
    for name in ("devices", "dtypes", "features"):
        if not all(isinstance(each, str) for each in said[name]):
            raise TargetError(f"the runner's hello has {name} {said[name]}, which are no strings")
    for name in ("devices", "dtypes"):
        if not said[name]:
            raise TargetError(f"the runner's hello claims no {name[:-1]}")
    return said


def _check(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        kinds = {bool: "true or false", str: "a string", dict: "an object", list: "a list"}
        raise TargetError(f"the runner's hello has {name} {str(value)[:100]!r}, which is not {kinds[kind]}")


def target_of(said: Hello, provides: Mapping[str, Callable[..., Any]]) -> Target:
    """The target of this hello, with what is called for each operation."""
    return Target(
        name=said["name"],
        provides=provides,
        devices=tuple(said["devices"]),
        dtypes=tuple(said["dtypes"]),
        features=tuple(said["features"]),
        variants=said["variants"] or {},
        deviations=said["deviations"],
        stages=said["stages"],
        version=said["version"],
    )
