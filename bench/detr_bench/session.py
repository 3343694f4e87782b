"""One run of the bench suite: who may be measured, the measuring, and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from detr_bench.calls import Scene, make_call, make_scene, reference_of
from detr_bench.devices import Ceilings, clock_of, cuda_peak_bytes, kind, measure_ceilings
from detr_bench.gate import Unit, Verdict, check, verdict_of
from detr_bench.growth import exponents
from detr_bench.peak_memory import peaks_in_a_process
from detr_bench.plan import FULL_PRECISION, Asked, Row, directions
from detr_bench.race import Judge, Runner, race, times
from detr_bench.traffic import least_bytes, least_flops
from detr_bench.workloads import Inside, Sizes, Workload
from detr_conformance.operations import OPERATIONS, SELECTS
from detr_conformance.target import Target

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

REFERENCE = "detr_conformance.targets.reference:target"


class NoSpeed(Exception):
    """The target failed its check, or nothing is known of it."""


class Unattainable(Exception):
    """A figure above what the machine can do: whatever took so short a time was not this work."""


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
        judge = Judge(*runners, comparable(unit, sizes, target))
        info |= {"growth": growth, **({} if growth else self._memory(row, *runners))}

        beside = race(benchmark, judge, clock_of(unit.device), unit.device, self.asked.seconds)
        if benchmark.stats is None:  # --benchmark-disable
            return
        info["difference"] = judge.worst if judge.by_norm else None
        info |= times(benchmark.stats.stats.data, beside)
        try:
            traffic = self._traffic(scene, row, sizes, info["own_seconds"]["least" if growth else "median"])
        except Unattainable:
            benchmark.has_error = True  # or its rounds would be saved
            raise
        info["traffic"] = None if growth else traffic
        benchmark.extra_info |= info
        self.infos.append(info)

    def _memory(self, row: Row, *runners: Runner) -> dict[str, Any]:
        """Peak bytes of target and reference, or None where they cannot be measured."""
        device = row.unit.device
        if kind(device) == "cuda":
            peaks: Iterable[int | None] = [self._on_cuda(runner, device) for runner in runners]
        else:
            peaks = [self._resident(row, target).get(row.direction) for target in (row.unit.target, REFERENCE)]
        return dict(zip(("own_peak_bytes", "reference_peak_bytes"), peaks, strict=True))

    @staticmethod
    def _on_cuda(runner: Runner, device: str) -> int:
        for _ in range(2):  # what only a first call allocates is not counted
            runner.prepare()
            peak = cuda_peak_bytes(runner.go, device)
            runner.let_go()
        return peak

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

    def _traffic(self, scene: Scene, row: Row, sizes: Sizes, seconds: float) -> dict[str, float] | None:
        """Bytes and operations a second of the sampling core, beside what the device reaches at best.

        Raises:
            Unattainable: the least that any implementation has to move or to compute takes this device longer.
        """
        device, dtype = row.unit.device, row.unit.dtype
        if (device, dtype) not in self.ceilings:
            self.ceilings[device, dtype] = measure_ceilings(device, dtype)
        ceiling = self.ceilings[device, dtype]
        core = sizes if isinstance(sizes, Workload) and row.unit.operation == "ms_deform_attn" else None
        itemsize = getattr(torch, dtype).itemsize
        moved = least_bytes(core, row.direction, itemsize) if core else scene.least_bytes(row.direction)
        computed = least_flops(core, row.direction) if core else 0
        traffic = {
            "bytes": moved,
            "bytes_per_second": moved / seconds,
            "share_of_copy": moved / seconds / ceiling.bytes_per_second,
            "flops": computed,
            "flops_per_second": computed / seconds,
            "share_of_product": computed / seconds / ceiling.flops_per_second,
        }
        for share, work in (("share_of_copy", "copying"), ("share_of_product", "multiplying")):
            if traffic[share] > 1:
                told = f"it would take {traffic[share]:.0%} of what this device reaches in {work}"
                raise Unattainable(f"no speed: {seconds:.2g} s are too short for this work: {told}")
        return traffic if core else None

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
