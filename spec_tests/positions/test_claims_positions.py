"""Claims 14 to 18 of spec chapter 10: reference points, valid ratios, and what carries a query's position."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detr_reference.attention.config import MultiheadAttentionConfig
from detr_reference.attention.multihead_attention import MultiheadAttention
from detr_reference.deformable_attention.core import level_starts
from detr_reference.deformable_attention.module import MultiScaleDeformableAttention
from detr_reference.features.valid_ratios import valid_ratios
from detr_reference.queries.reference_points import decoder_reference_points, encoder_reference_points
from helpers.tiny.claims_models import (
    EMBED,
    HEADS,
    LEVELS,
    BoxPosition,
    Memory,
    Recorder,
    RefiningDecoder,
    decoder_inputs,
    deformable_attention,
    memory,
    perturbed,
)

Sizes = list[tuple[int, int]]
MAPS: Sizes = [(8, 12), (4, 6)]
HALF: Sizes = [(4, 6), (2, 3)]  # of exact stride: the ratio is 1/2 on both levels
ROUNDED: Sizes = [(4, 5), (2, 3)]  # 5 of 12 columns, but 3 of 6


def largest(difference: Tensor) -> float:
    return difference.abs().max().item()


def masks(sizes: Sizes) -> list[Tensor]:
    """The padding masks of a batch of two: one image fills the maps, the other only these sizes."""
    every = []
    for (height, width), (rows, columns) in zip(MAPS, sizes, strict=True):
        mask = torch.zeros(2, height, width, dtype=torch.bool)
        mask[1, rows:] = True
        mask[1, :, columns:] = True
        every.append(mask)
    return every


def ratios(sizes: Sizes) -> Tensor:
    """(image, level, (w, h)): of the image that fills the maps, and of the padded one; in float64."""
    padded = [(columns / width, rows / height) for (height, width), (rows, columns) in zip(MAPS, sizes, strict=True)]
    exact = torch.tensor([[(1, 1)] * len(MAPS), padded], dtype=torch.float64)
    counted = torch.stack([valid_ratios(mask) for mask in masks(sizes)], dim=1)
    torch.testing.assert_close(counted, exact.float())
    return exact


def alone_and_padded(sizes: Sizes) -> tuple[Memory, Memory, Tensor]:
    """The second image by itself, the same padded with noise in a batch of two, and the batch's padding mask."""
    padding = torch.cat([mask.flatten(1) for mask in masks(sizes)], dim=1)
    batch = memory(MAPS)
    shapes = torch.tensor(sizes)
    alone = Memory(batch.value[1][~padding[1]][None], shapes, level_starts(shapes))
    return alone, batch, padding


# Claim 14


@pytest.mark.parametrize("coordinates", [2, 4])
def test_claim_14_references_agree_on_all_levels_if_ratios_do(coordinates: int) -> None:
    """Normalised references of the decoder: one for all levels, unless levels round the padding differently."""
    reference = torch.rand(2, 5, coordinates, dtype=torch.float64)
    equal = decoder_reference_points(reference, ratios(HALF))
    assert torch.equal(equal, equal[:, :, :1].expand_as(equal))
    other = decoder_reference_points(reference, ratios(ROUNDED))
    assert torch.equal(other[0, :, 0], other[0, :, 1])  # the image without padding
    torch.testing.assert_close(other[1, :, 0, 0] / other[1, :, 1, 0], torch.full((5,), (5 / 12) / (3 / 6)).double())


def test_claim_14_references_of_the_encoder_agree_if_ratios_do() -> None:
    """Else the cross-level factor vr_m / vr_l remains."""
    equal = encoder_reference_points(torch.tensor(MAPS), ratios(HALF))
    assert torch.equal(equal, equal[:, :, :1].expand_as(equal))
    rounded = encoder_reference_points(torch.tensor(MAPS), ratios(ROUNDED))
    x = rounded[1, : 8 * 12, :, 0]  # cells of level 0, as seen in both levels
    torch.testing.assert_close(x[:, 1] / x[:, 0], torch.full((96,), (3 / 6) / (5 / 12)).double())


def test_claim_14_the_same_reference_is_another_cell_on_each_level() -> None:
    """Same in normalised coordinates, not in cells: x * W_l - 1/2."""
    reference = decoder_reference_points(torch.full((2, 1, 2), 0.5).double(), ratios(HALF))[0, 0]
    cells = reference * torch.tensor(MAPS).flip(-1) - 0.5
    assert cells.tolist() == [[5.5, 3.5], [2.5, 1.5]]


# Claim 15


def encode(module: MultiScaleDeformableAttention, maps: Memory, vr: Tensor, padding: Tensor | None = None) -> Tensor:
    points = encoder_reference_points(maps.spatial_shapes, vr)
    return module(
        maps.value,
        key_padding_mask=padding,
        reference_points=points,
        spatial_shapes=maps.spatial_shapes,
        level_start_index=maps.level_start_index,
    )


def no_padding(images: int) -> Tensor:
    return torch.ones(images, LEVELS, 2, dtype=torch.float64)


def test_claim_15_in_the_encoder_equal_ratios_cancel() -> None:
    """Ratios equal on all levels may be left out: (i + 1/2) / (vr W) * vr."""
    module = perturbed(deformable_attention())
    _, batch, padding = alone_and_padded(HALF)
    with_ratios = encode(module, batch, ratios(HALF), padding)
    torch.testing.assert_close(encode(module, batch, no_padding(2), padding), with_ratios)


def test_claim_15_in_the_encoder_unequal_ratios_do_not_cancel() -> None:
    """Left out where levels round differently, they are missed: the image is no longer encoded as if it were alone."""
    module = perturbed(deformable_attention())
    alone, batch, padding = alone_and_padded(ROUNDED)
    expected = encode(module, alone, no_padding(1))[0]
    with_ratios = encode(module, batch, ratios(ROUNDED), padding)
    without = encode(module, batch, no_padding(2), padding)
    torch.testing.assert_close(with_ratios[1][~padding[1]], expected)
    assert largest(without[1][~padding[1]] - expected) > 0.1
    torch.testing.assert_close(with_ratios[0], without[0])


class DecoderLayer(nn.Module):
    """Deformable cross-attention from boxes, with DINO's query_pos; whether ratios scale either can be chosen."""

    def __init__(self, scaled_sampling: bool, scaled_sine: bool) -> None:
        super().__init__()
        self.position = BoxPosition()
        self.cross_attention = deformable_attention()
        self.scaled_sampling, self.scaled_sine = scaled_sampling, scaled_sine

    def forward(self, content: Tensor, boxes: Tensor, maps: Memory, vr: Tensor, padding: Tensor) -> Tensor:
        scaled = decoder_reference_points(boxes, vr)
        embedded = scaled[:, :, 0] if self.scaled_sine else boxes  # level 0, as DINO has it
        return self.cross_attention(
            content,
            maps.value,
            query_pos=self.position(embedded, content, 0),
            key_padding_mask=padding,
            reference_points=scaled if self.scaled_sampling else boxes[:, :, None].expand_as(scaled),
            spatial_shapes=maps.spatial_shapes,
            level_start_index=maps.level_start_index,
        )


def change_by_padding(sizes: Sizes, *, scaled_sampling: bool, scaled_sine: bool) -> float:
    """How much the decoder layer's output for an image changes when the image is padded into a batch."""
    layer = perturbed(DecoderLayer(scaled_sampling, scaled_sine))
    content, boxes, _ = decoder_inputs()
    alone, batch, padding = alone_and_padded(sizes)
    in_batch = layer(content, boxes, batch, ratios(sizes), padding)
    expected = layer(content[1:], boxes[1:], alone, no_padding(1), torch.zeros_like(padding[1:, ~padding[1]]))
    return largest(in_batch[1:] - expected)


@pytest.mark.parametrize("sizes", [HALF, ROUNDED], ids=["equal ratios", "unequal ratios"])
def test_claim_15_the_decoder_samples_with_ratios(sizes: Sizes) -> None:
    """With them padding changes nothing, to the last digits; without them the samples lie elsewhere on the image."""
    assert change_by_padding(sizes, scaled_sampling=True, scaled_sine=False) < 1e-12
    assert change_by_padding(sizes, scaled_sampling=False, scaled_sine=False) > 0.1


@pytest.mark.parametrize("sizes", [HALF, ROUNDED], ids=["equal ratios", "unequal ratios"])
def test_claim_15_ratios_in_the_sine_embedding_break_padding_invariance(sizes: Sizes) -> None:
    """DINO embeds boxes * ratio of level 0: the same image gets another query_pos when it is padded."""
    assert change_by_padding(sizes, scaled_sampling=True, scaled_sine=True) > 0.1


# Claim 16


def test_claim_16_references_come_from_the_positional_half() -> None:
    """One-stage Deformable DETR: query_embedding = (position | content), reference = sigmoid(linear(position))."""
    linear = nn.Linear(EMBED, 2)
    query_embedding = torch.randn(5, 2 * EMBED, requires_grad=True)
    position, _content = query_embedding.chunk(2, dim=-1)
    reference = linear(position).sigmoid()
    (gradient,) = torch.autograd.grad(reference.sum(), query_embedding)
    assert (gradient[:, :EMBED] != 0).all()
    assert (gradient[:, EMBED:] == 0).all()


# Claim 17


def outputs_from(module: MultiScaleDeformableAttention, *references: Tensor) -> list[Tensor]:
    """The outputs of the same queries on the same maps, from each of these references."""
    content, _, maps = decoder_inputs()
    return [
        module(content, reference_points=points[:, :, None].expand(-1, -1, LEVELS, -1), **maps._asdict())
        for points in references
    ]


def test_claim_17_width_and_height_scale_the_offsets() -> None:
    """loc = xy + offset / P * wh / 2: a box of the same centre and twice the size looks twice as far."""
    recorder = Recorder()
    module = perturbed(deformable_attention(recorder=recorder))
    _, boxes, _ = decoder_inputs()
    centre = boxes[..., :2]
    small, large = outputs_from(module, boxes, torch.cat((centre, 2 * boxes[..., 2:]), dim=-1))
    near, far = (locations - centre[:, :, None, None, None] for locations in recorder.locations)
    torch.testing.assert_close(far, 2 * near)
    assert largest(large - small) > 0.1


def test_claim_17_only_the_centre_would_matter_without_offsets() -> None:
    """The size enters through the offsets alone, and not at all for 2-d references."""
    module = perturbed(deformable_attention())
    with torch.no_grad():
        module.sampling_offsets.weight.zero_()
        module.sampling_offsets.bias.zero_()
    _, boxes, _ = decoder_inputs()
    resized = torch.cat((boxes[..., :2], 2 * boxes[..., 2:]), dim=-1)
    expected, from_resized, from_centres = outputs_from(module, boxes, resized, boxes[..., :2])
    torch.testing.assert_close(from_resized, expected)
    torch.testing.assert_close(from_centres, expected)


def test_claim_17_width_and_height_are_in_query_pos_too() -> None:
    """DINO's sine embedding is of all four coordinates."""
    position = perturbed(BoxPosition())
    _, boxes, _ = decoder_inputs()
    resized = torch.cat((boxes[..., :2], 0.5 * boxes[..., 2:]), dim=-1)
    assert largest(position(resized, boxes, 0) - position(boxes, boxes, 0)) > 0.1


# Claim 18


def test_claim_18_references_alone_carry_position() -> None:
    """No query_pos, one content for all queries: queries with different references still predict differently."""
    decoder = perturbed(RefiningDecoder(position=None))
    content, boxes, maps = decoder_inputs()
    content = content[:, :1].expand_as(content)
    states = []
    for layer in decoder.layers:
        layer.register_forward_hook(lambda _module, _inputs, output: states.append(output))
    decoder(content, boxes, maps)
    assert min(largest(state[:, 0] - state[:, 1]) for state in states) > 0.01
    states.clear()
    decoder(content, boxes[:, :1].expand_as(boxes), maps)
    assert max(largest(state[:, 0] - state[:, 1]) for state in states) == 0


def test_claim_18_without_query_pos_offsets_and_weights_are_blind() -> None:
    """They are linear in content + query_pos: of one content, and without query_pos, they are the same everywhere."""
    content, boxes, maps = decoder_inputs()
    content = content[:, :1].expand_as(content)
    differences = []
    for query_pos in (None, perturbed(BoxPosition())(boxes, content, 0)):
        recorder = Recorder()
        module = perturbed(deformable_attention(recorder=recorder))
        points = boxes[:, :, None].expand(-1, -1, LEVELS, 4)
        module(content, query_pos=query_pos, reference_points=points, **maps._asdict())
        differences.append(largest(recorder.weights[0][:, 0] - recorder.weights[0][:, 1]))
    assert differences[0] == 0
    assert differences[1] > 0.01


def test_claim_18_without_query_pos_queries_do_not_know_where_others_are() -> None:
    """Self-attention gets no references: queries of one content receive the same, unless query_pos differs."""
    module = perturbed(MultiheadAttention(MultiheadAttentionConfig(EMBED, HEADS)))
    content, boxes, _ = decoder_inputs()
    content[:, 1] = content[:, 0]
    alike = module(content)
    torch.testing.assert_close(alike[:, 0], alike[:, 1])
    placed = module(content, query_pos=perturbed(BoxPosition())(boxes, content, 0))
    assert largest(placed[:, 0] - placed[:, 1]) > 0.01
