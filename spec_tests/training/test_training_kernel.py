"""The sampling function of a training: a user's own, or the default of the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.deformable_attention.module import MultiScaleDeformableAttention
from detr_reference.kernels.cpu import ms_deform_attn as cpu_kernel
from detr_reference.training.distributed import Processes
from detr_reference.training.learning.kernel import default_sampling_function, sampling_function
from detr_reference.training.learning.models import make_model
from detr_reference.training.run import Run
from helpers.tiny.tiny_training import tiny_images, tiny_recipe
from helpers.tiny.training_cases import SMALL, small_batch

KERNELS = """
from detr_reference.deformable_attention.core import ms_deform_attn

def good(value, spatial_shapes, level_start_index, sampling_locations, attention_weights):
    return 2 * ms_deform_attn(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)

def with_block_size(value, shapes, starts, locations, weights, im2col_step=64):
    return ms_deform_attn(value, shapes, starts, locations, weights)

def four(value, spatial_shapes, sampling_locations, attention_weights):
    return value

def six(value, spatial_shapes, level_start_index, sampling_locations, attention_weights, im2col_step):
    return value

def by_name(*, value, spatial_shapes, level_start_index, sampling_locations, attention_weights):
    return value

number = 3
"""


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    path = tmp_path / "kernels.py"
    path.write_text(KERNELS)
    return path


def test_a_function_of_a_module() -> None:
    assert sampling_function("detr_reference.deformable_attention:ms_deform_attn") is ms_deform_attn


def test_a_function_of_a_file_computes_in_the_model(kernels: Path) -> None:
    name, settings = SMALL["deformable_detr"]
    batch, outputs = small_batch(), []
    for core in (None, sampling_function(f"{kernels}:with_block_size"), sampling_function(f"{kernels}:good")):
        torch.manual_seed(0)
        outputs.append(make_model(name, settings, core=core).eval()(batch.images, batch.mask)["pred_logits"])
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        (":four", r"kernels\.py:four must take \(value, spatial_shapes, level_start_index, .*\), but takes \(value, "),
        (":six", r"kernels\.py:six must take .*im2col_step"),
        (":by_name", r"kernels\.py:by_name must take .*"),
        (":number", r"number.* is a int, not a function"),
        (":absent", r"absent.* cannot be imported.*absent"),
        ("", r"names no function; write package\.module:function or path/to/file\.py:function"),
    ],
)
def test_a_function_that_cannot_be_one(kernels: Path, attribute: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampling_function(f"{kernels}{attribute}")


@pytest.mark.parametrize("name", ["no_such_module:function", "no_such_file.py:function"])
def test_a_place_that_is_not_there(name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be imported: .*no_such_"):
        sampling_function(name)


def test_a_compiled_function_without_a_signature_is_taken() -> None:
    assert sampling_function("operator:itemgetter") is not None
    assert sampling_function("builtins:print") is print


def test_the_default_of_a_device() -> None:
    assert default_sampling_function(torch.device("cpu")) is cpu_kernel
    assert default_sampling_function("cuda:1") is ms_deform_attn


def test_a_run_takes_the_default_of_its_device_unless_told_otherwise(tiny_folder: Path, tmp_path: Path) -> None:
    run = Run(tiny_recipe(), *tiny_images(tiny_folder), tmp_path, Processes(torch.device("cpu")), workers=0)
    for given, used in ((None, cpu_kernel), (ms_deform_attn, ms_deform_attn)):
        modules = run.learner(given, None).model.modules()
        assert {part.core for part in modules if isinstance(part, MultiScaleDeformableAttention)} == {used}
