"""DINO behind its neck, written down once more from the page of pseudocode: functions of tensors, one after another.

Nothing of the reference is used; sampling is torch's grid_sample. What every step finds is kept under the step's name,
so that a difference can be traced to the first one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, layer_norm, linear, relu

Parameters = Mapping[str, Tensor]


class Maps(NamedTuple):
    """Sizes, padding and valid ratios of all levels."""

    shapes: list[tuple[int, int]]
    padding: Tensor
    ratios: Tensor


def dino(
    maps: Sequence[Tensor],
    mask: Tensor,
    p: Parameters,
    config: Any,
    denoising: tuple[Tensor, Tensor, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The stages from the flattened maps to the predictions.

    Args:
        maps: what the neck gives out.
        denoising: content and references of the denoising queries, and the attention mask of all queries.
    """
    stages: dict[str, Tensor] = {}
    layers, queries = config.num_decoder_layers, config.num_queries

    # 2
    masks = [interpolate(mask[None].double(), size=each.shape[-2:])[0] > 0 for each in maps]
    x = torch.cat([each.flatten(2).mT for each in maps], 1)
    pos = torch.cat(
        [
            sines_of_cells(level, x.shape[-1] // 2, config.position_temperature, config.position_offset) + embed
            for level, embed in zip(masks, p["transformer.level_embeds"], strict=True)
        ],
        1,
    )
    ratios = torch.stack(
        [torch.stack(((~m)[:, 0].double().mean(1), (~m)[:, :, 0].double().mean(1)), -1) for m in masks], 1
    )
    at = Maps([tuple(each.shape[-2:]) for each in maps], torch.cat([m.flatten(1) for m in masks], 1), ratios)
    stages["positions"] = pos

    # 3
    centres = []
    for level, (height, width) in enumerate(at.shapes):
        for i in range(height):
            for j in range(width):
                cell = torch.tensor([(j + 0.5) / width, (i + 0.5) / height], dtype=x.dtype)
                centres.append(cell / ratios[:, level])
    points = torch.stack(centres, 1)[:, :, None] * ratios[:, None]
    for index in range(config.num_encoder_layers):
        name = f"transformer.encoder.layers.{index}"
        x = norm(x + deformable(x + pos, x, points, at, p, f"{name}.attentions.0", config), p, f"{name}.norms.0")
        x = norm(x + feed_forward(x, p, name), p, f"{name}.norms.1")
    memory = stages["memory"] = x

    # 4
    boxes = []
    for level, (m, (height, width)) in enumerate(zip(masks, at.shapes, strict=True)):
        columns, rows = (~m)[:, 0].double().sum(1), (~m)[:, :, 0].double().sum(1)
        for i in range(height):
            for j in range(width):
                side = torch.full(columns.shape, 0.05 * 2**level, dtype=x.dtype)
                boxes.append(torch.stack(((j + 0.5) / columns, (i + 0.5) / rows, side, side), -1))
    box = torch.stack(boxes, 1).double()
    valid = (box.min(-1).values > 0.01) & (box.max(-1).values < 0.99) & ~at.padding

    # 5
    features = torch.where(valid[..., None], memory, torch.zeros_like(memory))
    features = norm(lin(features, p, "transformer.enc_output"), p, "transformer.enc_output_norm")
    last = 1 if config.shared_heads else layers
    logits = lin(features, p, f"class_embed.{last}")
    proposals = torch.where(valid[..., None], (box / (1 - box)).log(), torch.tensor(math.inf, dtype=x.dtype))
    proposals = mlp(features, p, f"bbox_embed.{last}", 3) + proposals

    # 6
    order = logits.max(-1).values.argsort(dim=1, descending=True, stable=True)[:, :queries]
    image = torch.arange(len(order))[:, None]
    stages["enc_logits"], stages["enc_boxes"] = logits[image, order], proposals[image, order].sigmoid()

    # 7
    content = p["transformer.tgt_embed.weight"][None].repeat(len(order), 1, 1)
    references = proposals[image, order]

    # 8 to 10
    forbidden = torch.zeros(queries, queries, dtype=torch.bool)
    if denoising is not None:
        noised_content, noised_references, forbidden = denoising
        content = torch.cat((noised_content, content), 1)
        references = torch.cat((noised_references, references), 1)
    start = content.shape[1] - queries

    # 11 and 12
    fed = references.sigmoid()
    all_logits, all_boxes = [], []
    for index in range(layers):
        name, head = f"transformer.decoder.layers.{index}", 0 if config.shared_heads else index
        scaled = fed[:, :, None] * torch.cat((ratios, ratios), -1)[:, None]
        embedded = sines_of_boxes(scaled[:, :, 0] if config.embed_scaled_references else fed, x.shape[-1] // 2)
        where = mlp(embedded, p, "transformer.decoder.ref_point_head", 2)
        content = norm(
            content + attention(content, where, forbidden, p, f"{name}.attentions.0", config), p, f"{name}.norms.0"
        )
        read = deformable(content + where, memory, scaled, at, p, f"{name}.attentions.1", config)
        content = norm(content + read, p, f"{name}.norms.1")
        content = norm(content + feed_forward(content, p, name), p, f"{name}.norms.2")
        state = norm(content, p, "transformer.decoder.norm")
        all_logits.append(lin(state, p, f"class_embed.{head}"))
        all_boxes.append((mlp(state, p, f"bbox_embed.{head}", 3) + logit(fed)).sigmoid())
        fed = (mlp(content, p, f"bbox_embed.{head}", 3) + logit(fed)).sigmoid()

    # 13
    stages["pred_logits"], stages["pred_boxes"] = (
        torch.stack(all_logits)[:, :, start:],
        torch.stack(all_boxes)[:, :, start:],
    )
    if denoising is not None:
        stages["dn_logits"], stages["dn_boxes"] = (
            torch.stack(all_logits)[:, :, :start],
            torch.stack(all_boxes)[:, :, :start],
        )
    return stages


def lin(x: Tensor, p: Parameters, name: str) -> Tensor:
    return linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def norm(x: Tensor, p: Parameters, name: str) -> Tensor:
    return layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"])


def mlp(x: Tensor, p: Parameters, name: str, depth: int) -> Tensor:
    for index in range(depth):
        x = lin(relu(x) if index else x, p, f"{name}.layers.{index}")
    return x


def feed_forward(x: Tensor, p: Parameters, name: str) -> Tensor:
    return lin(relu(lin(x, p, f"{name}.ffns.0.layers.0.0")), p, f"{name}.ffns.0.layers.1")


def logit(box: Tensor) -> Tensor:
    return box.clamp(min=1e-3).log() - (1 - box).clamp(min=1e-3).log()


def waves(position: Tensor, channels: int, temperature: float) -> Tensor:
    found = []
    for channel in range(channels):
        phase = position * temperature ** (-2 * (channel // 2) / channels)
        found.append(phase.cos() if channel % 2 else phase.sin())
    return torch.stack(found, -1)


def sines_of_cells(padding: Tensor, channels: int, temperature: float, offset: float) -> Tensor:
    """(batch, cell, 2 * channels): y before x."""
    found = []
    for axis in (1, 2):
        count = (~padding).double().cumsum(axis)
        position = (count + offset) / (count.max(axis, keepdim=True).values + 1e-6) * 2 * math.pi
        found.append(waves(position, channels, temperature))
    return torch.cat(found, -1).flatten(1, 2)


def sines_of_boxes(box: Tensor, channels: int) -> Tensor:
    return torch.cat([waves(2 * math.pi * box[..., c], channels, 10000.0) for c in (1, 0, 2, 3)], -1)


def attention(x: Tensor, pos: Tensor, forbidden: Tensor, p: Parameters, name: str, config: Any) -> Tensor:
    """Among the queries, one head after another."""
    heads = []
    weight, bias = p[f"{name}.in_proj_weight"].chunk(3), p[f"{name}.in_proj_bias"].chunk(3)
    q, k, v = (linear(t, w, b) for t, w, b in zip((x + pos, x + pos, x), weight, bias, strict=True))
    for mine in torch.arange(x.shape[-1]).chunk(config.num_heads):
        scores = q[..., mine] @ k[..., mine].mT / math.sqrt(len(mine))
        heads.append(scores.masked_fill(forbidden, -math.inf).softmax(-1) @ v[..., mine])
    return lin(torch.cat(heads, -1), p, f"{name}.out_proj")


def deformable(
    looking: Tensor, source: Tensor, points: Tensor, at: Maps, p: Parameters, name: str, config: Any
) -> Tensor:
    """From queries at points (batch, query, level, 2 or 4) to the cells of all maps, a level and a head at a time."""
    batch, queries, _ = looking.shape
    heads, samples = config.num_heads, config.num_points
    value = lin(source, p, f"{name}.value_proj").masked_fill(at.padding[..., None], 0)
    offsets = lin(looking, p, f"{name}.sampling_offsets").reshape(batch, queries, heads, len(at.shapes), samples, 2)
    weights = lin(looking, p, f"{name}.attention_weights").reshape(batch, queries, heads, -1).softmax(-1)
    weights = weights.reshape(batch, queries, heads, len(at.shapes), samples)
    sizes = [height * width for height, width in at.shapes]
    total = [torch.zeros(()) for _ in range(heads)]
    for level, ((height, width), cells) in enumerate(zip(at.shapes, value.split(sizes, 1), strict=True)):
        for head, channels in enumerate(cells.chunk(heads, -1)):
            offset, point = offsets[:, :, head, level], points[:, :, level, None]
            if points.shape[-1] == 2:
                place = point + offset / torch.tensor([width, height])
            else:
                place = point[..., :2] + offset * point[..., 2:] / (2 * samples)
            field = channels.mT.reshape(batch, -1, height, width)
            read = grid_sample(field, 2 * place - 1, align_corners=False)
            total[head] = total[head] + (read * weights[:, None, :, head, level]).sum(-1).mT
    return lin(torch.cat(total, -1), p, f"{name}.output_proj")
