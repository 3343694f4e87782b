"""How the cost of deformable attention grows with each of its sizes, of a target and of the reference."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from detr_bench.gate import Unit
from detr_bench.growth import POINTS, grown
from detr_bench.plan import Row, growth_rows
from detr_bench.session import Session

rows = growth_rows


def test_growth(
    benchmark: BenchmarkFixture,
    detr_bench: Session,
    target: str,
    operation: str,
    device: str,
    dtype: str,
    workload: str,
    direction: str,
) -> None:
    axis, factor = POINTS[workload]
    row = Row(Unit(target, operation, device, dtype), workload, direction)
    detr_bench.measure(benchmark, row, grown(workload), growth={"axis": axis, "factor": factor})
