"""The Vision Transformer: an independent computation, closed forms of its parts, errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detr_reference.vision_transformer.config import VisionTransformerConfig
from detr_reference.vision_transformer.patch_embedding import PatchEmbedding
from detr_reference.vision_transformer.vit import VisionTransformer, build
from helpers.oracles import loop_vit
from helpers.tiny.attention_modules import as_numpy, perturbed

CONFIG = VisionTransformerConfig(
    image_size=(6, 8), patch_size=2, in_channels=3, embed_dim=10, depth=2, num_heads=2, mlp_ratio=1.5, pool="none"
)


def images(config: VisionTransformerConfig = CONFIG, batch: int = 2) -> Tensor:
    return torch.randn(batch, config.in_channels, *config.image_size, dtype=torch.float64)


@pytest.mark.parametrize("layer_scale", [True, False])
@pytest.mark.parametrize(("qkv_bias", "eps"), [(True, 1e-6), (False, 0.3)])
def test_equals_the_loop(layer_scale: bool, qkv_bias: bool, eps: float) -> None:
    """Patches, tokens, blocks and norms, in NumPy and one patch at a time."""
    config = replace(CONFIG, layer_scale=layer_scale, qkv_bias=qkv_bias, layer_norm_eps=eps)
    model, image = perturbed(VisionTransformer(config)), images()
    expected = loop_vit.vit(image.numpy(), as_numpy(model), patch=2, heads=2, eps=eps)
    torch.testing.assert_close(model(image), torch.from_numpy(expected))


def test_pools() -> None:
    """The class token, the mean of the patches without it, or everything: all after the final norm."""
    model, image = perturbed(VisionTransformer(CONFIG)), images()
    everything, state = model(image), model.state_dict()
    cls, mean = (build(replace(CONFIG, pool=pool), state).eval()(image) for pool in ("cls", "mean"))
    assert torch.equal(cls, everything[:, 0])
    torch.testing.assert_close(mean, everything[:, 1:].mean(1))
    assert (mean - everything.mean(1)).abs().max() > 0.01


def test_a_pixel_reaches_its_own_patch() -> None:
    """Pixel (y, x) lies in token y // P * W / P + x // P and in no other."""
    embed = perturbed(PatchEmbedding(patch_size=2, in_channels=3, embed_dim=10))
    blank = torch.zeros(1, 3, 6, 8, dtype=torch.float64)
    empty = embed(blank)
    for y, x in ((0, 0), (1, 3), (2, 7), (5, 4)):
        dotted = blank.clone()
        dotted[0, 1, y, x] = 1
        difference = embed(dotted) - empty
        token = y // 2 * 4 + x // 2
        torch.testing.assert_close(difference[0, token], embed.proj.weight[:, 1, y % 2, x % 2])
        difference[0, token] = 0
        assert difference.abs().max() < 1e-12


def test_positions_tell_patches_apart() -> None:
    """Without positions, exchanging two patches of the image does not change the class token; with them it does."""
    model, image = perturbed(VisionTransformer(replace(CONFIG, pool="cls"))), images()
    exchanged = image.clone()
    exchanged[..., 0:2, 0:2], exchanged[..., 4:6, 2:4] = image[..., 4:6, 2:4], image[..., 0:2, 0:2]
    assert (model(image) - model(exchanged)).abs().max() > 0.01
    torch.nn.init.zeros_(model.pos_embed)
    torch.testing.assert_close(model(image), model(exchanged))


def test_the_stream_is_never_normalised() -> None:
    """With sublayers that return zero every block is the identity."""
    model, image = perturbed(VisionTransformer(CONFIG)), images()
    for block in model.blocks:
        for layer in (block.attn.proj, block.mlp.fc2):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    stream = torch.cat((model.cls_token.expand(2, -1, -1), model.patch_embed(image)), 1) + model.pos_embed
    torch.testing.assert_close(model(image), model.norm(stream))


def test_layer_scale_of_zero_is_the_identity() -> None:
    model = perturbed(VisionTransformer(replace(CONFIG, layer_scale=True)))
    x = torch.randn(2, 13, 10, dtype=torch.float64)
    for block in model.blocks:
        torch.nn.init.zeros_(block.ls1.gamma)
        torch.nn.init.zeros_(block.ls2.gamma)
    assert torch.equal(model.blocks(x), x)


def test_a_fraction_of_the_mlp_is_cut_off() -> None:
    """int(10 * 1.57) = 15."""
    model = VisionTransformer(replace(CONFIG, mlp_ratio=1.57))
    assert model.blocks[0].mlp.fc1.weight.shape == (15, 10)


def test_base_model_has_the_published_number_of_parameters() -> None:
    """ViT-B/16 at 224 without its head: 85,798,656 (timm's vit_base_patch16_224 with num_classes=0)."""
    with torch.device("meta"):
        model = VisionTransformer(VisionTransformerConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 85_798_656


def test_training_mode_changes_nothing() -> None:
    model, image = perturbed(VisionTransformer(replace(CONFIG, layer_scale=True))), images()
    assert torch.equal(model(image), model.train()(image))


def test_initialisation() -> None:
    """Small positions and weights, zero biases; a fresh model sees its image."""
    model = build(replace(CONFIG, embed_dim=64, layer_scale=True)).double().eval()
    assert 0.015 < model.pos_embed.std() < 0.025
    assert model.cls_token.abs().max() < 1e-5
    assert model.blocks[1].attn.qkv.bias.abs().max() == 0
    assert 0.015 < model.blocks[1].mlp.fc1.weight.std() < 0.025
    assert model.blocks[0].ls2.gamma.detach().unique().tolist() == pytest.approx([1e-5])
    image = images()
    assert (model(image) - model(-image)).abs().max() > 0.1


def test_gradcheck() -> None:
    model = perturbed(VisionTransformer(replace(CONFIG, depth=1, layer_scale=True)))
    assert torch.autograd.gradcheck(model, (images(batch=1).requires_grad_(),), fast_mode=True)


def test_every_parameter_has_a_gradient() -> None:
    model = perturbed(VisionTransformer(replace(CONFIG, layer_scale=True)))
    (model(images()) * torch.randn(2, 13, 10)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 1e-3, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_build_copies_the_parameters_it_is_given(dtype: torch.dtype) -> None:
    source = perturbed(VisionTransformer(CONFIG)).to(dtype)
    state = source.state_dict()
    built = build(CONFIG, state).eval()
    image = images().to(dtype)
    assert torch.equal(built(image), source(image))
    assert all(p.data_ptr() != state[name].data_ptr() and p.dtype == dtype for name, p in built.named_parameters())


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (2, 3, 6, 16), (2, 1, 6, 8), (2, 3, 7, 8), (3, 6, 8), (2, 3, 4, 12)])
@pytest.mark.usefixtures("unchecked_shapes")
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    """Also where the number of patches would be right."""
    with pytest.raises(ValueError, match=r"\(batch, 3, 6, 8\), got \(" + ", ".join(map(str, shape))):
        VisionTransformer(CONFIG)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"image_size": (6, 7)}, r"multiples of patch_size 2, got \(6, 7\)"),
        ({"image_size": (0, 8)}, r"multiples of patch_size 2, got \(0, 8\)"),
        ({"patch_size": 0}, "patch_size must be at least 1, got 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"num_heads": 3}, "10 / 3 leaves 1 channels over"),
        ({"mlp_ratio": 0.01}, "mlp_ratio 0.01 leaves no channel of embed_dim 10"),
        ({"layer_norm_eps": -1e-6}, "layer_norm_eps must not be negative"),
        ({"pool": "max"}, "pool must be one of .*, got 'max'"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_configuration_is_named(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(CONFIG, **wrong)
