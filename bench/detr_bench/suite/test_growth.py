"""How the cost of deformable attention grows with each of its sizes, of a target and of the reference."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from detr_bench.growth import POINTS, grown
from detr_bench.plan import Row, growth_rows
from detr_bench.session import Session

rows = growth_rows


def test_growth(benchmark: BenchmarkFixture, detr_bench: Session, detr_bench_row: Row) -> None:
    point = detr_bench_row.workload
    axis, factor = POINTS[point]
    detr_bench.measure(benchmark, detr_bench_row, grown(point), growth={"axis": axis, "factor": factor})
