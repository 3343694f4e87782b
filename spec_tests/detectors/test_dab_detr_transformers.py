"""DAB-DETR of transformers, an independent computation from the same parameters.

transformers takes the softmax of its attentions and the sine embedding of cells in float32 whatever the model is in,
and its logits with eps 1e-5 instead of 1e-3, which shows only in boxes that nearly vanish or touch the border.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from detr_reference.checkpoints.names import NameTable
from detr_reference.checkpoints.renaming import reference_names
from detr_reference.checkpoints.tables import transformers_names as names
from detr_reference.checkpoints.tables.resnet_names import COUNTERS, transformers_rows
from detr_reference.detectors.config import DABDETRConfig
from detr_reference.detectors.dab_detr import build
from helpers.tiny.detector_cases import TINY, padded_images, theirs_of

transformers = pytest.importorskip("transformers")

ENCODER, OUR_ENCODER = "model.encoder.layers.{i}", "transformer.encoder.layers.{i}"
DECODER, OUR_DECODER = "model.decoder.layers.{i}", "transformer.decoder.layers.{i}"
SELF = ("query_content_proj", "query_pos_proj", "key_content_proj", "key_pos_proj", "value_proj")
CROSS = (*SELF, "query_pos_sine_proj")

TABLE = NameTable(
    [
        *transformers_rows("model.backbone.conv_encoder.model.", "backbone."),
        ("model.input_projection.{p}", "input_proj.{p}"),
        ("model.query_refpoint_embeddings.weight", "anchor_box_embed.weight"),
        *names.attention_rows(f"{ENCODER}.self_attn", f"{OUR_ENCODER}.attentions.0"),
        (f"{ENCODER}.self_attn_layer_norm.{{p}}", f"{OUR_ENCODER}.norms.0.{{p}}"),
        (f"{ENCODER}.final_layer_norm.{{p}}", f"{OUR_ENCODER}.norms.1.{{p}}"),
        *names.feed_forward_rows(ENCODER, OUR_ENCODER),
        (f"{ENCODER}.activation_fn.weight", f"{OUR_ENCODER}.ffns.0.layers.0.1.weight"),
        *((f"{DECODER}.self_attn.self_attn_{n}.{{p}}", f"{OUR_DECODER}.attentions.0.{n}.{{p}}") for n in SELF),
        *((f"{DECODER}.cross_attn.cross_attn_{n}.{{p}}", f"{OUR_DECODER}.attentions.1.{n}.{{p}}") for n in CROSS),
        (f"{DECODER}.self_attn.self_attn.output_proj.{{p}}", f"{OUR_DECODER}.attentions.0.out_proj.{{p}}"),
        (f"{DECODER}.cross_attn.cross_attn.output_proj.{{p}}", f"{OUR_DECODER}.attentions.1.out_proj.{{p}}"),
        (f"{DECODER}.self_attn.self_attn_layer_norm.{{p}}", f"{OUR_DECODER}.norms.0.{{p}}"),
        (f"{DECODER}.cross_attn.cross_attn_layer_norm.{{p}}", f"{OUR_DECODER}.norms.1.{{p}}"),
        (f"{DECODER}.mlp.final_layer_norm.{{p}}", f"{OUR_DECODER}.norms.2.{{p}}"),
        *names.feed_forward_rows(DECODER, OUR_DECODER),
        (f"{DECODER}.mlp.activation_fn.weight", f"{OUR_DECODER}.ffns.0.layers.0.1.weight"),
        *(
            (f"model.{part}.layers.{{i}}.{{p}}", f"transformer.{part}.layers.{{i}}.{{p}}")
            for part in (
                "encoder.query_scale",
                "decoder.query_scale",
                "decoder.ref_point_head",
                "decoder.ref_anchor_head",
            )
        ),
        ("model.decoder.layernorm.{p}", "transformer.decoder.post_norm_layer.{p}"),
        ("class_embed.{p}", "class_embed.{p}"),
        ("[bbox_predictor|model.decoder.bbox_embed].layers.{i}.{p}", "bbox_embed.layers.{i}.{p}"),
    ],
    unused=[COUNTERS],
)


@pytest.fixture
def _double() -> Iterator[None]:
    """Their first contents are zeros of torch's default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def theirs(**options: object) -> nn.Module:
    """As TINY, in transformers' words."""
    return theirs_of("DabDetr", hidden_size=8, **options)


def layers_of(model: nn.Module, images: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The predictions after every decoder layer, of which transformers returns the last one."""
    final = model(images, pixel_mask=(~mask).long())
    inner = model.model(images, pixel_mask=(~mask).long())
    hidden, references = inner.intermediate_hidden_states, inner.reference_points
    found = {
        "pred_logits": model.class_embed(hidden),
        "pred_boxes": (model.bbox_predictor(hidden) + torch.logit(references)).sigmoid(),
    }
    torch.testing.assert_close(found["pred_logits"][-1], final.logits)
    torch.testing.assert_close(found["pred_boxes"][-1], final.pred_boxes)
    assert references.min() > 0.001
    assert references.max() < 0.999
    return found


@pytest.mark.usefixtures("_double")
def test_equals_transformers() -> None:
    model, (images, mask) = theirs(), padded_images()
    mine = build(DABDETRConfig(**TINY), reference_names(TABLE, model.state_dict())).eval()
    expected, found = layers_of(model, images, mask), mine(images, mask)
    assert list(found) == list(expected)
    for name in expected:
        assert expected[name].std((0, 2)).min() > 1e-3
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)
