"""The workloads have the sizes that the models' feature maps have."""

from __future__ import annotations

from detr_bench.workloads import WORKLOADS


def test_cells_and_queries() -> None:
    cells = {name: workload.cells for name, workload in WORKLOADS.items()}
    assert cells["dino-encoder"] == 22_223
    assert cells["dino-encoder-1066"] == 17_821
    assert cells["dino-encoder-5-scale"] == 89_023
    assert cells["mask2former-encoder-1024"] == 21_504
    assert cells["rt-detr-decoder-640"] == 8_400
    assert cells["bevformer-base"] == 30_825
    for name, workload in WORKLOADS.items():
        assert ("encoder" in name) == (workload.queries == workload.cells)
