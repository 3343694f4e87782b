"""What the interpreter does not show: Triton compiles the kernels, to the instructions that they were written for."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from helpers.places import HELPERS

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.fixture(scope="module")
def instructions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    environment = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [sys.executable, str(HELPERS / "triton_compile.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_channels_are_read_sixteen_bytes_at_a_time(instructions: dict[str, dict[str, int]], dtype: str) -> None:
    """Four corners at least; the backward pass reads the incoming gradient too."""
    assert instructions[f"forward_kernel, {dtype}"]["vector load"] >= 4
    assert instructions[f"backward_kernel, {dtype}"]["vector load"] >= 5
    assert instructions[f"gather_kernel, {dtype}"]["vector load"] >= 1


def test_the_forward_pass_needs_no_shared_memory(instructions: dict[str, dict[str, int]]) -> None:
    """Each thread computes the coordinates that it needs: no thread waits for another."""
    assert instructions["forward_kernel, fp32"]["shared load"] == 0


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_value_gradients_are_added_four_at_a_time(instructions: dict[str, dict[str, int]], dtype: str) -> None:
    """In float32 whatever the dtype of value; and nothing is added atomically where the order is fixed."""
    backward = instructions[f"backward_kernel, {dtype}"]
    assert backward["atomic"] == backward["vector atomic"] >= 4
    assert instructions[f"gather_kernel, {dtype}"]["atomic"] == 0
    assert instructions[f"run_kernel, {dtype}"]["atomic"] == 0
