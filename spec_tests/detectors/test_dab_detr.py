"""DAB-DETR: boxes as queries, corrected layer by layer; padding; what is detached; initial boxes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from detr_reference.attention.conditional_attention import ConditionalCrossAttention, ConditionalSelfAttention, attend
from detr_reference.detectors.config import DABDETRConfig
from detr_reference.detectors.dab_detr import DABDETR, build
from detr_reference.feed_forward.config import MLPConfig
from detr_reference.feed_forward.mlp import MLP
from detr_reference.positions.box_position_embedding import box_position_embedding
from helpers.tiny.detector_cases import TINY, Patches, builds_copies, on_larger_canvas, padded_images, scrambled

CONFIG = DABDETRConfig(**TINY)


def model() -> DABDETR:
    return scrambled(DABDETR(CONFIG))


def test_number_of_parameters() -> None:
    """DAB-DETR with ResNet-50 and 91 logits has 43.7 million parameters; with COCO's 80 classes 11 rows less."""
    with torch.device("meta"):
        published, ours = (DABDETR(DABDETRConfig(num_classes=classes)) for classes in (91, 80))
    assert sum(p.numel() for p in published.parameters()) == 43_671_517
    assert sum(p.numel() for p in ours.parameters()) == 43_671_517 - 11 * 257
    assert sum(p.numel() for p in published.parameters() if p.requires_grad) == 43_671_517 - 222_400


def test_one_prediction_a_layer() -> None:
    found = model()(*padded_images())
    assert list(found) == ["pred_logits", "pred_boxes"]
    assert found["pred_logits"].shape == (3, 2, 5, 3)
    assert found["pred_boxes"].shape == (3, 2, 5, 4)
    assert ((found["pred_boxes"] > 0) & (found["pred_boxes"] < 1)).all()


def test_initial_boxes_are_the_anchors() -> None:
    """No correction yet: every layer predicts the learned boxes. Their centres are uniform, every class has 1 %."""
    detr = DABDETR(replace(CONFIG, num_queries=400)).double().eval()
    found = detr(*padded_images())
    anchors = detr.anchor_box_embed.weight.sigmoid()
    torch.testing.assert_close(found["pred_boxes"], anchors.clamp(0.001, 0.999).expand(3, 2, -1, -1))
    assert anchors[:, :2].std().item() == pytest.approx(12**-0.5, abs=0.03)
    assert detr.anchor_box_embed.weight[:, 2:].std().item() == pytest.approx(1, abs=0.1)
    torch.testing.assert_close(detr.class_embed.bias.sigmoid(), torch.full((3,), 0.01, dtype=torch.float64))
    slopes = [m.weight.item() for m in detr.modules() if isinstance(m, nn.PReLU)]
    assert slopes == [0.25] * 5


def test_what_padded_cells_hold_has_no_effect() -> None:
    """The padding mask reaches encoder and cross-attentions."""
    detr, (images, mask) = model(), padded_images()
    expected, padding = detr(images, mask), mask[:, ::32, ::32]

    def fill(_module: nn.Module, _inputs: object, features: Tensor) -> Tensor:
        return features.masked_fill(padding[:, None], torch.nan)

    detr.input_proj.register_forward_hook(fill)
    for name, found in detr(images, mask).items():
        torch.testing.assert_close(found, expected[name])


def test_padding_invariance() -> None:
    """More padding, by whole cells, changes nothing, if the backbone sees each cell by itself."""
    images, mask = padded_images()
    detr = scrambled(DABDETR(CONFIG, backbone=Patches()))
    larger = detr(*on_larger_canvas(images, mask, 160, 224))
    for name, expected in detr(images, mask).items():
        torch.testing.assert_close(larger[name], expected)


class CopyPerCall(MLP):
    """Another perceptron at every call: with one shared by all layers, gradients do not tell the calls apart."""

    def __init__(self, config: MLPConfig, calls: int) -> None:
        super().__init__(config)
        self.copies = nn.ModuleList(MLP(config) for _ in range(calls))
        self.next = 0

    def forward(self, x: Tensor) -> Tensor:
        self.next += 1
        return self.copies[self.next - 1](x)


def test_corrections_are_trained_by_the_next_layer_too() -> None:
    """The box behind prediction i depends on correction i - 1 and on no earlier one: what layers are fed is detached.

    The anchors are fed to the first layer as they are, and reach everything through what it makes of them.
    """
    detr, (images, mask) = model(), padded_images()
    heads = scrambled(CopyPerCall(MLPConfig(8, 8, 4, 3), calls=3))
    content = torch.zeros(2, 5, 8, dtype=torch.float64)
    _, references = detr.transformer(detr.cells(images, mask), content, detr.anchors(batch=2), heads)
    assert heads.next == 3
    for layer, reference in enumerate(references):
        weights = [each.layers[-1].weight for each in heads.copies] + [detr.anchor_box_embed.weight]
        found = torch.autograd.grad(reference.sum(), weights, retain_graph=True, allow_unused=True)
        reached = [gradient is not None and bool(gradient.any()) for gradient in found]
        assert reached == [layer == 1, layer == 2, False, True]


def test_layers_are_told_their_own_box() -> None:
    """query_pos is made of the box that the layer before has corrected, query_sine grows where that is narrow."""
    detr, (images, mask) = model(), padded_images()
    decoder, seen = detr.transformer.decoder, []
    hooks = [layer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs)) for layer in decoder.layers]
    detr(images, mask)
    for hook in hooks:
        hook.remove()
    box = detr.anchors(batch=2)
    for number, (content, query_pos, query_sine, *_) in enumerate(seen):
        waves = box_position_embedding(box, num_pos_feats=4)
        torch.testing.assert_close(query_pos, decoder.ref_point_head(waves))
        centre = waves[..., :8] * (decoder.query_scale(content) if number else 1)
        width, height = (decoder.ref_anchor_head(content).sigmoid() / box[..., 2:]).unbind(-1)
        torch.testing.assert_close(query_sine[..., :4], centre[..., :4] * height[..., None])
        torch.testing.assert_close(query_sine[..., 4:], centre[..., 4:] * width[..., None])
        after = decoder.layers[number](*seen[number])
        box = (detr.bbox_embed(after) + torch.logit(box)).sigmoid()


IDLE = {
    f"transformer.decoder.layers.0.attentions.0.{name}.weight"
    for name in ("query_content_proj", "query_pos_proj", "key_content_proj", "key_pos_proj", "value_proj")
} | {f"transformer.decoder.layers.0.attentions.0.query_{what}_proj.bias" for what in ("content", "pos")}


def test_gradients_reach_what_is_trained() -> None:
    """All but biases of keys, which every softmax cancels, and what the first self-attention does not use: its contents
    are zero, and all its values equal."""
    detr = model()
    found = detr(*padded_images())
    sum((each * torch.randn_like(each)).sum() for each in found.values()).backward()
    for name, parameter in detr.named_parameters():
        frozen = name.startswith(("backbone.conv1", "backbone.layer1."))
        assert (parameter.grad is None) == frozen, name
        idle = name in IDLE or name.endswith(("key_content_proj.bias", "key_pos_proj.bias"))
        assert frozen or (parameter.grad.abs().max() > 1e-12) != idle, name


def test_a_cross_attention_score_is_content_plus_place() -> None:
    """After the first layer contents meet contents, and places meet places, in each head; nothing crosses."""
    attention = scrambled(ConditionalCrossAttention(8, num_heads=2, first=False))
    x, pos, sine = (torch.randn(1, 3, 8, dtype=torch.float64) for _ in range(3))
    memory, memory_pos = (torch.randn(1, 4, 8, dtype=torch.float64) for _ in range(2))
    padding = torch.tensor([[False, False, True, False]])
    found = attention(x, memory, pos, sine, memory_pos, padding) - x
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        contents = attention.query_content_proj(x)[0, :, head] @ attention.key_content_proj(memory)[0, :, head].T
        places = attention.query_pos_sine_proj(sine)[0, :, head] @ attention.key_pos_proj(memory_pos)[0, :, head].T
        scores = ((contents + places) / 8**0.5)[:, [0, 1, 3]]
        heads.append(scores.softmax(-1) @ attention.value_proj(memory)[0, [0, 1, 3], head])
    torch.testing.assert_close(found[0], attention.out_proj(torch.cat(heads, -1)))


def test_only_the_first_cross_attention_reads_the_learned_position() -> None:
    first, later = (scrambled(ConditionalCrossAttention(8, num_heads=2, first=first)) for first in (True, False))
    x, sine, one, two = (torch.randn(1, 3, 8, dtype=torch.float64) for _ in range(4))
    memory, memory_pos = (torch.randn(1, 4, 8, dtype=torch.float64) for _ in range(2))
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    assert torch.equal(*(later(x, memory, pos, sine, memory_pos, nothing) for pos in (one, two)))
    assert (first(x, memory, one, sine, memory_pos, nothing) - first(x, memory, two, sine, memory_pos, nothing)).any()
    assert set(first.state_dict()) - set(later.state_dict()) == {"query_pos_proj.weight", "query_pos_proj.bias"}


def test_self_attention_adds_positions_to_queries_and_keys() -> None:
    attention = scrambled(ConditionalSelfAttention(8, num_heads=2))
    x, pos = (torch.randn(2, 3, 8, dtype=torch.float64) for _ in range(2))
    forbidden = torch.tensor([[False, True, False], [False, False, True], [True, False, False]])
    q = attention.query_content_proj(x) + attention.query_pos_proj(pos)
    k = attention.key_content_proj(x) + attention.key_pos_proj(pos)
    split = [each.unflatten(-1, (2, 4)).transpose(1, 2) for each in (q, k, attention.value_proj(x))]
    attended = nn.functional.scaled_dot_product_attention(*split, attn_mask=~forbidden).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(x, pos, forbidden), x + attention.out_proj(attended))


def test_a_query_that_may_see_nothing_receives_nothing() -> None:
    q, k, v = (torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    forbidden = torch.tensor([[False, True, False], [True, True, True], [False, False, False]])
    out = attend(q, k, v, 2, forbidden)
    assert not out[0, 1].any()
    assert out[0, [0, 2]].all()
    out.sum().backward()
    assert q.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_build_copies_the_parameters_it_is_given(dtype: torch.dtype) -> None:
    builds_copies(build, CONFIG, model(), dtype)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"embed_dim": 6}, "embed_dim must be a multiple of 4 .*got 6"),
        ({"num_heads": 3}, "8 / 3 leaves 2 channels over"),
        ({"num_encoder_layers": 0}, "num_encoder_layers must be at least 1, got 0"),
        ({"backbone_width": 0}, "width must be at least 1, got 0"),
    ],
)
def test_wrong_configuration_is_named(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(CONFIG, **wrong)
