"""docs/examples/transformers_kernel.py: a core of ours inside transformers' Deformable DETR."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.places import EXAMPLES
from helpers.triton_device import DEVICE

pytest.importorskip("transformers", reason="transformers is not installed")

EXAMPLE = EXAMPLES / "transformers_kernel.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("transformers_kernel", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def config() -> Any:
    from transformers import DeformableDetrConfig, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    return DeformableDetrConfig(backbone_config=backbone, d_model=32, num_queries=7, num_labels=3, **layers, **heads)


@pytest.fixture(scope="module")
def model(config: Any) -> nn.Module:
    """Random weights: those of a fresh model let no sampling offset and no weight depend on the query."""
    from transformers import DeformableDetrForObjectDetection

    torch.manual_seed(0)
    made = DeformableDetrForObjectDetection(config).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made


class Counted:
    """A core that counts its calls."""

    def __init__(self, core: Callable[..., Tensor], device: str) -> None:
        self.core, self.device, self.calls = core, device, 0

    def __call__(self, *arguments: Tensor) -> Tensor:
        self.calls += 1
        return self.core(*arguments)


@pytest.fixture(params=[("cpu", "cpu"), ("triton_kernel", DEVICE)], ids=["cpu", "triton"])
def core(request: pytest.FixtureRequest) -> Counted:
    module, device = request.param
    return Counted(importlib.import_module(f"detr_reference.kernels.{module}").ms_deform_attn, device)


def results(model: nn.Module) -> tuple[Tensor, ...]:
    """Logits, boxes, and the gradients of all parameters, of two images of which one is padded."""
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 64, 96, dtype=torch.long)
    mask[1, 50:], mask[1, :, 60:] = 0, 0
    device = next(model.parameters()).device
    found = model(pixel_values=images.to(device), pixel_mask=mask.to(device))
    model.zero_grad()
    (found.logits.sum() + found.pred_boxes.sum()).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return tuple(t.detach().cpu() for t in (found.logits, found.pred_boxes, torch.cat([*map(torch.ravel, gradients)])))


def assert_equal(model: nn.Module, expected: tuple[Tensor, ...]) -> None:
    for got, right in zip(results(model), expected, strict=True):
        assert right.abs().max() > 0
        torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-4 * float(right.abs().max()))


def test_by_the_hook_for_kernels(example: ModuleType, model: nn.Module, config: Any, core: Counted) -> None:
    """Equal outputs and gradients, and four calls of the core: one for each layer."""
    try:  # by its metadata: the folder of this test has the package's name
        importlib.metadata.version("kernels")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package kernels is not installed")
    expected = results(model)
    fresh = type(model)(config).eval().to(core.device)
    fresh.load_state_dict(model.state_dict())
    assert_equal(example.with_kernel(fresh, core), expected)
    assert core.calls == 4


@pytest.fixture
def clean_table() -> Iterator[None]:
    from transformers.monkey_patching import clear_patch_mapping

    clear_patch_mapping()
    yield
    clear_patch_mapping()


@pytest.mark.usefixtures("clean_table")
def test_by_the_table_of_classes(example: ModuleType, model: nn.Module, config: Any, core: Counted) -> None:
    """The same for a model that is built when the table has been filled."""
    from transformers import AutoModelForObjectDetection

    expected = results(model)
    example.register_core(core)
    fresh = AutoModelForObjectDetection.from_config(config).eval().to(core.device)
    fresh.load_state_dict(model.state_dict())
    assert_equal(fresh, expected)
    assert core.calls == 4
