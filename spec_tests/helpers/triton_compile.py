"""Compiles the Triton kernels for an H100, which needs no GPU, and prints how often each instruction occurs, as JSON.

Run as a script of its own: in a process that interprets, nothing can be compiled.
"""

from __future__ import annotations

import json
import re

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from detr_reference.kernels import triton_backward, triton_forward, triton_gather

HOPPER = GPUTarget("cuda", 90, 32)
KERNELS = (
    triton_forward.forward_kernel,
    triton_backward.backward_kernel,
    triton_gather.run_kernel,
    triton_gather.gather_kernel,
)
SIZES = {"HEADS": 8, "CHANNELS": 32, "LEVELS": 4, "POINTS": 4, "SAMPLES": 16}
SIZES |= {"ROWS": 32, "COLUMNS": 32, "DEPTH": 8, "TILE": 1024}
SIZES |= {"TO_VALUE": True, "TO_LOCATIONS": True, "TO_WEIGHTS": True}
INTEGERS = ("images", "queries", "cells", "samples", "runs")
TABLES = ("spatial_shapes", "level_start_index", "order", "run_starts", "run_of_sample")
INSTRUCTIONS = {
    "vector load": r"ld\.global\.v4",
    "vector atomic": r"(?:atom|red)\.global\S*\.add\.v4\.f32",
    "atomic": r"(?:atom|red)\.global",
    "shared load": r"ld\.shared",
}


def compiled(kernel: triton.JITFunction, dtype: str, **settings: object) -> str:
    """The PTX of a kernel for arguments of this dtype at the sizes of a published model."""
    number = "fp64" if dtype == "fp64" else "fp32"
    constants = {**SIZES, "NUMBER": tl.float64 if dtype == "fp64" else tl.float32, "INDEX": tl.int32, **settings}
    signature, values, aligned = {}, {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], values[(place,)] = "constexpr", constants[name]
        elif name in INTEGERS:
            signature[name] = "i32"
        else:
            kind = "i64" if name in TABLES else number if name == "grad_value" else dtype
            signature[name], aligned[(place,)] = f"*{kind}", [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=values, attrs=aligned)
    return triton.compile(source, target=HOPPER, options={"num_warps": 4}).asm["ptx"]


def main() -> None:
    found = {}
    for kernel in KERNELS:
        for dtype in ("fp32", "bf16"):
            ptx = compiled(kernel, dtype)
            counts = {name: len(re.findall(pattern, ptx)) for name, pattern in INSTRUCTIONS.items()}
            found[f"{kernel.__name__}, {dtype}"] = counts
    for kernel in KERNELS[:2]:
        compiled(kernel, "fp16", INDEX=tl.int64, CHANNELS=71, COLUMNS=128, ROWS=8, POINTS=3)
        compiled(kernel, "fp64")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
