"""How fast a target is beside the reference, at the sizes of published detectors."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from detr_bench.plan import Row, speed_rows
from detr_bench.session import Session
from detr_bench.workloads import find

rows = speed_rows


def test_speed(benchmark: BenchmarkFixture, detr_bench: Session, detr_bench_row: Row) -> None:
    sizes = find(detr_bench_row.unit.operation, detr_bench_row.workload)
    assert sizes is not None
    detr_bench.measure(benchmark, detr_bench_row, sizes)
