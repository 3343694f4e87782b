"""What is measured: the figures that the options ask for, of what a target provides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from detr_bench.gate import Unit
from detr_bench.growth import POINTS
from detr_bench.workloads import TABLE, Inside, Sizes, chosen
from detr_conformance.target import Target, TargetError

FULL_PRECISION = ("float64", "float32")


@dataclass(frozen=True)
class Asked:
    """What to measure, and how: the options of `detr-spec bench`; empty operations and workloads mean the usual."""

    operations: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    directions: tuple[str, ...] = ("forward", "both")
    device: str | None = None
    dtypes: tuple[str, ...] = ("float32",)
    threads: int | None = None
    seconds: float = 3.0
    profile: str = "standard"


@dataclass(frozen=True)
class Row:
    """One figure of the table."""

    unit: Unit
    workload: str
    direction: str

    @property
    def group(self) -> str:
        unit = self.unit
        return f"{unit.operation} {self.workload} {self.direction} {unit.dtype} {unit.device}"


def units(name: str, target: Target, asked: Asked) -> list[Unit]:
    """Each operation asked for that the target provides; if none is named, the first that has such workloads.

    Raises:
        TargetError: no device that it claims is present.
    """
    provided = [o for o in TABLE if o in target.provides and chosen(o, asked.workloads)]
    operations = [o for o in provided if o in asked.operations] if asked.operations else provided[:1]
    device = asked.device or first_present(target)
    return [Unit(name, operation, device, dtype) for operation in operations for dtype in asked.dtypes]


def speed_rows(unit: Unit, target: Target, asked: Asked) -> Iterator[Row]:
    """The chosen workloads in each direction."""
    for workload, sizes in chosen(unit.operation, asked.workloads).items():
        if applies(sizes, unit.dtype):
            yield from (Row(unit, workload, direction) for direction in directions(target, asked))


def growth_rows(unit: Unit, target: Target, asked: Asked) -> Iterator[Row]:
    """Deformable attention at each size of each axis."""
    if unit.operation == "ms_deform_attn":
        for point in POINTS:
            yield from (Row(unit, point, direction) for direction in directions(target, asked))


def directions(target: Target, asked: Asked) -> list[str]:
    """Those asked for; without the feature backward the forward alone."""
    return [each for each in asked.directions if each == "forward" or "backward" in target.features]


def applies(sizes: Sizes, dtype: str) -> bool:
    """A model in half precision gives its core locations in float32, which a kernel need not take."""
    return not isinstance(sizes, Inside) or dtype in FULL_PRECISION


def first_present(target: Target) -> str:
    """The first device that the target claims and this machine has.

    Raises:
        TargetError: there is none.
    """
    from detr_bench.devices import is_present

    for device in target.devices:
        if is_present(device):
            return device
    raise TargetError(f"target {target.name!r} runs on {', '.join(target.devices)}, absent on this machine")
