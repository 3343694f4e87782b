"""The backbone: transformers' ResNet as an independent computation, its sizes, its names, what is frozen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detr_reference.checkpoints.renaming import reference_names
from detr_reference.checkpoints.tables.transformers_resnet import TABLE
from detr_reference.features.config import ResNetConfig
from detr_reference.features.frozen_batch_norm import FrozenBatchNorm
from detr_reference.features.resnet import Bottleneck, ResNet, build
from helpers.tiny.detector_cases import scrambled

CONFIG = ResNetConfig(blocks=(2, 1, 3, 1), width=4, out_stages=(1, 2, 3, 4))


def images(height: int = 75, width: int = 101) -> Tensor:
    return torch.randn(2, 3, height, width, dtype=torch.float64)


def test_equals_transformers() -> None:
    """Features of all stages, from the same parameters and statistics, on odd sizes."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.ResNetBackbone(
        transformers.ResNetConfig(
            embedding_size=4,
            hidden_sizes=[16, 32, 64, 128],
            depths=list(CONFIG.blocks),
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
    )
    scrambled(theirs)
    ours, given = build(CONFIG, reference_names(TABLE, theirs.state_dict())).eval(), images()
    found, expected = ours(given), theirs(given).feature_maps
    assert len(found) == len(expected) == 4
    for mine, other in zip(found, expected, strict=True):
        assert other.std() > 0.1
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


def test_frozen_batch_norm_is_batch_norm_in_evaluation() -> None:
    frozen, free = scrambled(FrozenBatchNorm(5)), nn.BatchNorm2d(5).double().eval()
    free.load_state_dict(frozen.state_dict(), strict=False)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(frozen(x), free(x))
    torch.testing.assert_close(frozen.train()(x), free(x))
    assert not list(frozen.parameters())
    assert list(frozen.state_dict()) == ["weight", "bias", "running_mean", "running_var"]


@pytest.mark.parametrize("size", [(64, 96), (75, 101), (33, 31)])
def test_strides_round_up(size: tuple[int, int]) -> None:
    features = scrambled(ResNet(CONFIG))(images(*size))
    for stride, channels, each in zip((4, 8, 16, 32), (16, 32, 64, 128), features, strict=True):
        assert each.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


def test_the_stride_is_on_the_3x3_convolution() -> None:
    """On the first 1 x 1 convolution ("v1"), three quarters of the pixels would not be read at all."""
    x = torch.randn(16, 8, 6, 6, dtype=torch.float64, requires_grad=True)
    block = scrambled(Bottleneck(channels=8, width=2, stride=2))
    block(x).sum().backward()
    assert (x.grad.abs().amax((0, 1)) > 0).all()
    assert block.conv2.stride == (2, 2)


def test_only_chosen_stages_are_returned() -> None:
    model = scrambled(ResNet(CONFIG))
    given = images()
    chosen = build(ResNetConfig(CONFIG.blocks, 4, out_stages=(2, 4)), model.state_dict()).eval()
    assert chosen.channels == (32, 128)
    for found, expected in zip(chosen(given), model(given)[1::2], strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("size", [(96, 160), (65, 101)])
def test_dilation_fills_in_cells_between(size: tuple[int, int]) -> None:
    """At every other cell a dilated stage has what the undilated one has: its first block is not dilated yet."""
    model, given = scrambled(ResNet(ResNetConfig((1, 1, 1, 3), width=4))), images(*size)
    dilated = build(ResNetConfig((1, 1, 1, 3), width=4, dilation=True), model.state_dict()).eval()
    (dense,), (sparse,) = dilated(given), model(given)
    assert dense.shape[-2:] == (-(-size[0] // 16), -(-size[1] // 16))
    torch.testing.assert_close(dense[..., ::2, ::2], sparse)


def torchvision_names() -> list[str]:
    """Of torchvision's resnet50, without the classifier and the counters of batches."""
    norm = ("weight", "bias", "running_mean", "running_var")
    names = ["conv1.weight", *(f"bn1.{n}" for n in norm)]
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            for number in (1, 2, 3):
                names += [f"{at}.conv{number}.weight", *(f"{at}.bn{number}.{n}" for n in norm)]
            if block == 0:
                names += [f"{at}.downsample.0.weight", *(f"{at}.downsample.1.{n}" for n in norm)]
    return names


def test_resnet_50_has_torchvisions_names_and_numbers() -> None:
    """25,557,032 parameters there, of which 2,049,000 in the classifier and 53,120 in the norms, buffers here."""
    with torch.device("meta"):
        model = ResNet(ResNetConfig())
    assert list(model.state_dict()) == torchvision_names()
    assert len(torchvision_names()) == 265
    norms = sum(t.numel() for name, t in model.named_buffers() if name.endswith(("weight", "bias")))
    assert norms == 53_120
    assert sum(p.numel() for p in model.parameters()) == 25_557_032 - 2_049_000 - norms
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer4.2.conv2.weight"] == (512, 512, 3, 3)
    assert shapes["layer4.2.bn3.running_var"] == (2048,)


@pytest.mark.parametrize(("frozen", "number"), [(0, 0), (1, 222_400), (4, 23_454_912)])
def test_what_is_frozen(frozen: int, number: int) -> None:
    """The published detectors train neither the stem nor the first stage."""
    with torch.device("meta"):
        model = ResNet(ResNetConfig(frozen_stages=frozen))
    still = {name: p.numel() for name, p in model.named_parameters() if not p.requires_grad}
    assert sum(still.values()) == number
    stages = {name.split(".")[0] for name in still}
    assert stages == ({"conv1"} | {f"layer{stage}" for stage in range(1, frozen + 1)} if frozen else set())


def test_initialisation() -> None:
    """Kaiming-normal by outputs: deviation sqrt(2 / (k^2 * output channels))."""
    model = ResNet(ResNetConfig(width=32))
    for name, fan_out in (("conv1", 49 * 32), ("layer3.0.conv2", 9 * 128), ("layer4.1.conv3", 1024)):
        deviation = model.get_submodule(name).weight.std().item()
        assert deviation == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


def test_build_copies_the_parameters_it_is_given() -> None:
    state = scrambled(ResNet(CONFIG)).state_dict()
    built = build(CONFIG, state)
    for name, tensor in built.state_dict().items():
        assert torch.equal(tensor, state[name])
        assert tensor.data_ptr() != state[name].data_ptr()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"blocks": (3, 4, 6)}, r"blocks must be 4 numbers from 1 up.*got \(3, 4, 6\)"),
        ({"blocks": (3, 4, 0, 3)}, r"got \(3, 4, 0, 3\)"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"out_stages": (4, 3)}, r"out_stages must be rising numbers from 1 to 4, got \(4, 3\)"),
        ({"out_stages": ()}, r"out_stages must be rising numbers from 1 to 4, got \(\)"),
        ({"out_stages": (2, 5)}, r"got \(2, 5\)"),
        ({"frozen_stages": 5}, "frozen_stages must lie between 0 and 4, got 5"),
    ],
)
def test_wrong_configuration_is_named(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ResNetConfig(**wrong)


@pytest.mark.usefixtures("unchecked_shapes")
def test_images_of_one_channel_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images must be \(batch, 3, height, width\), got \(2, 1, 32, 32\)"):
        ResNet(CONFIG)(torch.zeros(2, 1, 32, 32))
