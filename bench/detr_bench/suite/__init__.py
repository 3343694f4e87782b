"""Measurements as tests: `pytest --pyargs detr_bench.suite --detr-bench-target TARGET`, or `detr-spec bench`."""
