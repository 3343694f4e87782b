"""What a sampling core cannot avoid: bytes that must cross the memory bus, and multiplications and additions.

Against the machine's own ceilings these say how much is left to gain. Real implementations move more: a cell is read
by many samples, and intermediates are written and read again.
"""

from __future__ import annotations

from detr_bench.workloads import Workload


def least_bytes(w: Workload, direction: str, itemsize: int) -> int:
    """Every argument read once, as far as it is needed, and every result written once.

    forward: value, locations, weights -> output. backward: these arguments and the gradient of the output -> three
    gradients. both: the sum. Of a value no more cells are read than its samples have corners.
    """
    samples = w.batch * w.queries * w.heads * len(w.levels) * w.points
    corners = 4 * w.queries * w.points
    value = w.batch * w.cells * w.heads * w.channels
    read = w.batch * sum(min(h * b, corners) for h, b in w.levels) * w.heads * w.channels
    output = w.batch * w.queries * w.heads * w.channels
    moved = {"forward": read + 3 * samples + output, "backward": read + value + 6 * samples + output}
    moved["both"] = sum(moved.values())
    return moved[direction] * itemsize


def least_flops(w: Workload, direction: str) -> int:
    """Four corners a sample and channel, two operations a corner: one product in the forward, two in the backward
    (onto the value, and with the gradient of the output)."""
    pairs = w.batch * w.queries * w.heads * len(w.levels) * w.points * w.channels
    return {"forward": 8, "backward": 16, "both": 24}[direction] * pairs
