"""How fast a target is beside the reference, at the sizes of published detectors."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from detr_bench.gate import Unit
from detr_bench.plan import Row, speed_rows
from detr_bench.session import Session
from detr_bench.workloads import find

rows = speed_rows


def test_speed(
    benchmark: BenchmarkFixture,
    detr_bench: Session,
    target: str,
    operation: str,
    device: str,
    dtype: str,
    workload: str,
    direction: str,
) -> None:
    sizes = find(operation, workload)
    assert sizes is not None
    detr_bench.measure(benchmark, Row(Unit(target, operation, device, dtype), workload, direction), sizes)
