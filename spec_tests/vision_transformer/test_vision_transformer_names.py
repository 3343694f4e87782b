"""State dicts of timm and transformers: proved by equal outputs, because swapped thirds have the same sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detr_reference.vision_transformer.config import VisionTransformerConfig
from detr_reference.vision_transformer.names import from_timm, from_transformers
from detr_reference.vision_transformer.vit import VisionTransformer, build
from helpers.tiny.attention_modules import perturbed

transformers = pytest.importorskip("transformers")

CONFIG = VisionTransformerConfig(
    image_size=(6, 8),
    patch_size=2,
    embed_dim=12,
    depth=2,
    num_heads=3,
    mlp_ratio=1.5,
    layer_norm_eps=1e-12,
    pool="none",
)
SIZES = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "patch_size": 2,
    "layer_norm_eps": 1e-12,
}
IMAGE = (2, 3, 6, 8)
OLD_NAMES = (
    ("layers.", "encoder.layer."),
    ("attention.q_proj", "attention.attention.query"),
    ("attention.k_proj", "attention.attention.key"),
    ("attention.v_proj", "attention.attention.value"),
    ("attention.o_proj", "attention.output.dense"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
)


def their_vit(qkv_bias: bool = True) -> torch.nn.Module:
    config = transformers.ViTConfig(image_size=(6, 8), intermediate_size=18, qkv_bias=qkv_bias, **SIZES)
    return perturbed(transformers.ViTModel(config))


def old_name(name: str) -> str:
    for new, old in OLD_NAMES:
        name = name.replace(new, old)
    return name


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("prefix", ["", "vit."])
def test_transformers_vit_gives_the_same_output(prefix: str, version: int, qkv_bias: bool) -> None:
    theirs, config = their_vit(qkv_bias), replace(CONFIG, qkv_bias=qkv_bias)
    rename = old_name if version == 4 else str
    state = {prefix + rename(name): tensor for name, tensor in theirs.state_dict().items()}
    image = torch.randn(IMAGE, dtype=torch.float64)
    ours = build(config, from_transformers(state, config)).eval()
    torch.testing.assert_close(ours(image), theirs(image).last_hidden_state, rtol=0, atol=1e-12)


def test_saved_checkpoints_hold_the_old_names(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """What save_pretrained writes and what the module is called differ; both load."""
    safetensors = pytest.importorskip("safetensors.torch")
    theirs = their_vit()
    theirs.save_pretrained(tmp_path)
    saved = safetensors.load_file(tmp_path / "model.safetensors")
    ours, live = from_transformers(saved, CONFIG), from_transformers(theirs.state_dict(), CONFIG)
    assert set(ours) == set(live)
    assert all(torch.equal(tensor, live[name]) for name, tensor in ours.items())


def test_transformers_dinov2_gives_the_same_output() -> None:
    """Other names for norms and layer scale. A square image: theirs resamples the positions of all others."""
    config = transformers.Dinov2Config(image_size=8, mlp_ratio=2, **SIZES)
    theirs = perturbed(transformers.Dinov2Model(config))
    ours = replace(CONFIG, image_size=(8, 8), mlp_ratio=2.0, layer_scale=True)
    image = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    mapped = build(ours, from_transformers(theirs.state_dict(), ours)).eval()
    torch.testing.assert_close(mapped(image), theirs(image).last_hidden_state, rtol=0, atol=1e-12)


def test_a_swap_of_query_and_key_shows_in_the_output_alone() -> None:
    """What the proof above would miss if it compared sizes."""
    theirs = their_vit()
    swapped = {
        name.replace("q_proj", "?").replace("k_proj", "q_proj").replace("?", "k_proj"): tensor
        for name, tensor in theirs.state_dict().items()
    }
    image = torch.randn(IMAGE, dtype=torch.float64)
    ours = build(CONFIG, from_transformers(swapped, CONFIG)).eval()
    assert (ours(image) - theirs(image).last_hidden_state).abs().max() > 0.01


def test_heads_are_dropped() -> None:
    state = VisionTransformer(CONFIG).state_dict()
    head = {"head.weight": torch.zeros(7, 12), "head.bias": torch.zeros(7)}
    assert from_timm(state | head, CONFIG).keys() == state.keys()
    theirs = their_vit().state_dict()
    classifier = {"classifier.weight": torch.zeros(7, 12), "pooler.dense.bias": torch.zeros(12)}
    assert from_transformers(theirs | classifier, CONFIG).keys() == state.keys()


def test_norm_behind_the_pool_is_refused() -> None:
    state = VisionTransformer(CONFIG).state_dict()
    for part in ("weight", "bias"):
        state[f"fc_norm.{part}"] = state.pop(f"norm.{part}")
    with pytest.raises(ValueError, match="normalises the mean of the patches"):
        from_timm(state, CONFIG)


def told(state: dict[str, Tensor]) -> list[str]:
    with pytest.raises(ValueError, match="does not fit the configuration") as raised:
        from_transformers(state, CONFIG)
    return sorted(line.strip() for line in str(raised.value).splitlines()[1:])


def test_every_fault_is_reported_at_once() -> None:
    """Unknown, missing and wrongly sized names; one key projection missing leaves query and value unknown."""
    state = their_vit().state_dict()
    state["layers.0.register"] = torch.zeros(3)
    state["layernorm.bias"] = torch.zeros(13)
    del state["embeddings.cls_token"]
    del state["layers.1.attention.k_proj.bias"]
    assert told(state) == [
        "missing: blocks.1.attn.qkv.bias",
        "missing: cls_token",
        "size: norm.bias is (13,) and should be (12,)",
        "unknown: blocks.1.attn.q.bias",
        "unknown: blocks.1.attn.v.bias",
        "unknown: layers.0.register",
    ]


def test_both_names_of_one_parameter_are_refused() -> None:
    state = their_vit().state_dict()
    state["encoder.layer.0.output.dense.bias"] = state["layers.0.mlp.fc2.bias"]
    assert told(state) == ["given twice: encoder.layer.0.output.dense.bias and another name of the same parameter"]


def test_a_model_of_another_size_is_refused() -> None:
    state = VisionTransformer(replace(CONFIG, image_size=(8, 8))).state_dict()
    with pytest.raises(ValueError, match=r"size: pos_embed is \(1, 17, 12\) and should be \(1, 13, 12\)"):
        from_timm(state, CONFIG)
    with pytest.raises(ValueError, match=r"missing: blocks\.1\.ls2\.gamma"):
        from_timm(VisionTransformer(CONFIG).state_dict(), replace(CONFIG, layer_scale=True))
