"""One run of the bench suite: who may be measured, the measuring, and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from detr_bench.calls import make_call, make_scene, reference_of
from detr_bench.devices import Ceilings, clock_of, cuda_peak_bytes, kind, measure_ceilings
from detr_bench.gate import Unit, Verdict, check, verdict_of
from detr_bench.growth import exponents
from detr_bench.peak_memory import peaks_in_a_process
from detr_bench.plan import FULL_PRECISION, Asked, Row, directions
from detr_bench.race import Runner, difference, race, times
from detr_bench.traffic import least_bytes, least_flops
from detr_bench.workloads import Inside, Sizes, Workload
from detr_conformance.operations import OPERATIONS, SELECTS
from detr_conformance.target import Target

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

REFERENCE = "detr_conformance.targets.reference:target"


class NoSpeed(Exception):
    """The target failed its check, or nothing is known of it."""


@dataclass
class Session:
    """Holds the targets and options of a run, and what it found so far."""

    targets: dict[str, Target]
    asked: Asked
    verdicts: dict[Unit, Verdict] = field(default_factory=dict)
    ceilings: dict[tuple[str, str], Ceilings] = field(default_factory=dict)
    peaks: dict[tuple[str, Row], dict[str, int]] = field(default_factory=dict)
    infos: list[dict[str, Any]] = field(default_factory=list)

    def require_pass(self, unit: Unit) -> Verdict:
        """The verdict of the check of this run, which is made now unless it was made before.

        Raises:
            NoSpeed: it is not a pass.
        """
        if unit not in self.verdicts:
            self.verdicts[unit] = verdict_of(unit, self.asked.profile, check(unit, self.asked.profile))
        if not self.verdicts[unit].passed:
            raise NoSpeed(self.verdicts[unit].told)
        return self.verdicts[unit]

    def measure(
        self, benchmark: BenchmarkFixture, row: Row, sizes: Sizes, growth: dict[str, Any] | None = None
    ) -> None:
        """Fill in one figure: times, and what else belongs to them as `extra_info`."""
        unit, target = row.unit, self.targets[row.unit.target]
        verdict = self.require_pass(unit)
        scene = make_scene(unit.operation, sizes, unit.device, getattr(torch, unit.dtype))
        own = make_call(scene, target.provides[unit.operation])
        reference = make_call(scene, reference_of(unit.operation))
        runners = Runner(own, row.direction), Runner(reference, row.direction)

        info: dict[str, Any] = {"name": target.name, **asdict(unit), "workload": row.workload}
        info |= {"direction": row.direction, "check": verdict.told, "threads": torch.get_num_threads()}
        compared = comparable(unit, sizes, target)
        info["difference"] = difference(own, reference, row.direction) if compared else None
        info |= {"growth": growth, **({} if growth else self._memory(row, *runners))}

        beside = race(benchmark, *runners, clock_of(unit.device), unit.device, self.asked.seconds)
        if benchmark.stats is None:  # --benchmark-disable
            return
        info |= times(benchmark.stats.stats.data, beside)
        info["traffic"] = None if growth else self._traffic(row, sizes, info["own_seconds"]["median"])
        benchmark.extra_info |= info
        self.infos.append(info)

    def _memory(self, row: Row, *runners: Runner) -> dict[str, Any]:
        """Peak bytes of target and reference, or None where they cannot be measured."""
        device = row.unit.device
        if kind(device) == "cuda":
            peaks: Iterable[int | None] = [cuda_peak_bytes(runner.round, device) for runner in runners]
        else:
            peaks = [self._resident(row, target).get(row.direction) for target in (row.unit.target, REFERENCE)]
        return dict(zip(("own_peak_bytes", "reference_peak_bytes"), peaks, strict=True))

    def _resident(self, row: Row, target: str) -> dict[str, int]:
        """Of a CPU, by direction, once a workload; "backward" alone is no call that has a peak of its own."""
        unit = row.unit
        key = (target, Row(unit, row.workload, ""))
        if key not in self.peaks:
            wanted = [each for each in directions(self.targets[unit.target], self.asked) if each != "backward"]
            measured = kind(unit.device) == "cpu" and wanted
            arguments = (target, unit.operation, row.workload, wanted, unit.dtype, torch.get_num_threads())
            self.peaks[key] = peaks_in_a_process(*arguments) if measured else {}
        return self.peaks[key]

    def _traffic(self, row: Row, sizes: Sizes, seconds: float) -> dict[str, float] | None:
        """For the sampling core: bytes and operations a second, beside what the device reaches at best."""
        if not isinstance(sizes, Workload) or row.unit.operation != "ms_deform_attn":
            return None
        device, dtype = row.unit.device, row.unit.dtype
        if (device, dtype) not in self.ceilings:
            self.ceilings[device, dtype] = measure_ceilings(device, dtype)
        ceiling = self.ceilings[device, dtype]
        moved = least_bytes(sizes, row.direction, getattr(torch, dtype).itemsize)
        computed = least_flops(sizes, row.direction)
        return {
            "bytes": moved,
            "bytes_per_second": moved / seconds,
            "share_of_copy": moved / seconds / ceiling.bytes_per_second,
            "flops": computed,
            "flops_per_second": computed / seconds,
            "share_of_product": computed / seconds / ceiling.flops_per_second,
        }

    def section(self) -> dict[str, Any]:
        """The part of the JSON that is ours."""
        return {
            "schema_version": 1,
            "checks": [verdict.as_dict() for verdict in self.verdicts.values()],
            "ceilings": [asdict(ceiling) for ceiling in self.ceilings.values()],
            "growth": exponents(self.infos),
        }


def comparable(unit: Unit, sizes: Sizes, target: Target) -> bool:
    """Whether two right implementations give nearly equal results at any size: not where queries are selected among
    nearly equal scores, nor where coordinates are rounded to half precision."""
    model = sizes.host if isinstance(sizes, Inside) else unit.operation
    selects = model in OPERATIONS and set(SELECTS) <= set(OPERATIONS[model].exempt)
    half = unit.dtype not in FULL_PRECISION and target.variants.get("coordinates") == "half"
    return not selects and not half


def machine(info: dict[str, Any]) -> dict[str, Any]:
    """pytest-benchmark's description of the machine, without its name in a network, and with what decides here."""
    cpu = info.get("cpu", {})
    kept = {name: value for name, value in info.items() if name not in ("node", "release", "cpu")}
    kept["cpu"] = {name: cpu[name] for name in ("brand_raw", "arch", "count") if name in cpu}
    kept |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        kept["cuda"] = {"device": torch.cuda.get_device_name(), "version": torch.version.cuda}
    return kept
