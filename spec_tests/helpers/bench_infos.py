"""What the bench suite leaves of a figure, made up."""

from __future__ import annotations

from typing import Any

from detr_bench.race import times


def info(own: list[float], reference: list[float], **changes: Any) -> dict[str, Any]:
    """`extra_info` of a benchmark whose rounds took so long."""
    return {
        "name": "mine",
        "target": "mine.py:target",
        "operation": "ms_deform_attn",
        "device": "cpu",
        "dtype": "float32",
        "workload": "dino-decoder",
        "direction": "forward",
        "check": "pass",
        "threads": 2,
        "difference": 1e-7,
        "growth": None,
        "own_peak_bytes": 50_000_000,
        "reference_peak_bytes": 100_000_000,
        "traffic": None,
        **times(own, reference),
        **changes,
    }
