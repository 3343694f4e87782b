"""Pictures of the building blocks, chapters 1 to 9: sampling, attention, layers, positions, masks."""

from __future__ import annotations

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import Tensor

from detr_reference.attention.config import MultiheadAttentionConfig
from detr_reference.attention.multihead_attention import MultiheadAttention
from detr_reference.deformable_attention.config import MSDeformAttnConfig
from detr_reference.deformable_attention.module import MultiScaleDeformableAttention
from detr_reference.denoising.denoising_mask import denoising_attention_mask
from detr_reference.features.valid_ratios import valid_ratios
from detr_reference.positions.sine_position_embedding import sine_position_embedding
from detr_reference.queries.reference_points import encoder_reference_points
from detr_reference.transformer.config import TransformerLayerConfig
from detr_reference.vision_transformer.patch_embedding import PatchEmbedding
from drawings.style import ACCENT, COOL, CREAM, INK, WARM, grid


def sampling() -> Figure:
    """One sample inside a map and one at its border: which cells count, and how much."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 4))
    for axes, (x, y), title in zip(
        panels,
        ((2.85, 1.3), (0.2, 2.6)),
        ("inside: four corners", "at the border: what is outside is zero"),
        strict=True,
    ):
        height, width = 4, 5
        grid(axes, height, width)
        px, py = x - 0.5, y - 0.5
        for i in (int(py // 1), int(py // 1) + 1):
            for j in (int(px // 1), int(px // 1) + 1):
                weight = (1 - abs(px - j)) * (1 - abs(py - i))
                inside = 0 <= i < height and 0 <= j < width
                face, edge = (COOL, INK) if inside else ("none", ACCENT)
                style = "-" if inside else ":"
                axes.add_patch(
                    Rectangle((j, i), 1, 1, facecolor=face, alpha=0.25 + 0.7 * weight if inside else 1, edgecolor=edge,
                              linestyle=style)
                )  # fmt: skip
                axes.text(j + 0.5, i + 0.28, f"{weight:.2f}", ha="center", va="center", fontsize=9, color=INK)
        axes.plot(x, y, "o", color=ACCENT, markersize=7)
        axes.set_title(f"{title}\nlocation ({x / width:.2f}, {y / height:.2f}), pixel coordinate ({px:.2f}, {py:.2f})",
                       fontsize=9)  # fmt: skip
    return figure


def initial_offsets() -> Figure:
    """Where a freshly initialised module looks: around a point in cells, and inside a box."""
    config = MSDeformAttnConfig(embed_dim=64, num_heads=8, num_levels=1, num_points=4)
    seen: list[Tensor] = []

    def watching(value: Tensor, *rest: Tensor) -> Tensor:
        seen.append(rest[2])
        return value.new_zeros(1, 1, config.embed_dim)

    module = MultiScaleDeformableAttention(config, core=watching)
    height, width = 10, 14
    shapes, start = torch.tensor([[height, width]]), torch.tensor([0])
    figure, panels = plt.subplots(1, 2, figsize=(10, 4))
    references = (torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5, 0.55, 0.5]))
    titles = ("2-d reference: an offset of one is one cell", "4-d reference: point i lies i/P of the way to the border")
    for axes, reference, title in zip(panels, references, titles, strict=True):
        module(
            torch.zeros(1, 1, config.embed_dim),
            value=torch.zeros(1, height * width, config.embed_dim),
            reference_points=reference.view(1, 1, 1, -1),
            spatial_shapes=shapes,
            level_start_index=start,
        )
        grid(axes, height, width)
        points = seen[-1][0, 0, :, 0].detach() * torch.tensor([width, height])
        for head, along in enumerate(points):
            axes.plot(along[:, 0], along[:, 1], "-o", color=mpl.colormaps["tab10"](head), markersize=4, linewidth=0.8)
        axes.plot(width / 2, height / 2, "s", color=INK, markersize=5)
        if len(reference) == 4:
            w, h = reference[2] * width, reference[3] * height
            axes.add_patch(Rectangle((width / 2 - w / 2, height / 2 - h / 2), w, h, fill=False, edgecolor=INK))
        axes.set_title(title, fontsize=9)
    return figure


def weights_of(attn_mask: Tensor | None, padding: Tensor | None, queries: Tensor, keys: Tensor) -> Tensor:
    """The attention weights, read off the reference: the values are the unit vectors, so the output is the weights."""
    length = keys.shape[1]
    module = MultiheadAttention(MultiheadAttentionConfig(embed_dim=length, num_heads=1)).eval()
    with torch.no_grad():
        module.in_proj_weight[2 * length :] = torch.eye(length)
        module.out_proj.weight.copy_(torch.eye(length))
        none = torch.zeros_like(queries)
        values = torch.eye(length)[None]
        return module(queries, keys, values, none, attn_mask=attn_mask, key_padding_mask=padding)[0]


def attention_masks() -> Figure:
    """An attention mask, a padding mask, and the weights that are left."""
    torch.manual_seed(3)
    num_queries, num_keys = 6, 8
    queries, keys = torch.randn(1, num_queries, num_keys) * 2, torch.randn(1, num_keys, num_keys) * 2
    blocked = torch.zeros(num_queries, num_keys, dtype=torch.bool)
    blocked[:3, 4:] = blocked[3:, :2] = True
    padding = torch.zeros(1, num_keys, dtype=torch.bool)
    padding[0, -2:] = True
    rows = padding.expand(num_queries, -1)
    figure, panels = plt.subplots(1, 4, figsize=(12, 3.2))
    boolean = {"cmap": "Greys", "vmin": 0, "vmax": 1.6}
    panels[0].imshow(blocked, **boolean)
    panels[0].set_title("attn_mask (Q, K)\nTrue (dark): may not attend", fontsize=9)
    panels[1].imshow(rows, **boolean)
    panels[1].set_title("key_padding_mask (B, K)\nthe same for every query", fontsize=9)
    panels[2].imshow(weights_of(None, None, queries, keys), cmap="Blues", vmin=0)
    panels[2].set_title("weights without masks", fontsize=9)
    panels[3].imshow(weights_of(blocked, padding, queries, keys), cmap="Blues", vmin=0)
    panels[3].set_title("weights with both\n(each row still sums to one)", fontsize=9)
    for axes in panels:
        axes.set(xlabel="key", ylabel="query", xticks=range(num_keys), yticks=range(num_queries))
    return figure


def layer_orders() -> Figure:
    """What an operation_order does to the stream: DETR's encoder and decoder layers, and the pre-norm encoder."""
    orders = {
        "post-norm encoder layer": ("self_attn", "norm", "ffn", "norm"),
        "pre-norm encoder layer": ("norm", "self_attn", "norm", "ffn"),
        "post-norm decoder layer": ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm"),
    }
    figure, panels = plt.subplots(len(orders), 1, figsize=(11, 4.6))
    for axes, (title, order) in zip(panels, orders.items(), strict=True):
        draw_order(axes, TransformerLayerConfig(operation_order=order))
        axes.set_title(f"{title}: operation_order = {order}", fontsize=9, loc="left")
    return figure


def draw_order(axes: Axes, config: TransformerLayerConfig) -> None:
    colours = {"norm": CREAM, "ffn": WARM, "self_attn": COOL, "cross_attn": "#9cc5a1"}
    x, left = 0.7, 0.0  # where the next box begins, and where the last un-normalised stream was
    axes.plot([0, 0.7], [0, 0], color=INK)
    for operation in config.operation_order:
        axes.add_patch(FancyBboxPatch((x, -0.3), 1.2, 0.6, boxstyle="round,pad=0.05", facecolor=colours[operation]))
        axes.text(x + 0.6, 0, operation, ha="center", va="center", fontsize=9)
        end = x + 1.2
        if operation != "norm":
            centre = end + 0.4
            axes.add_patch(
                FancyArrowPatch((left + 0.25, 0), (centre, 0.14), connectionstyle="arc3,rad=-0.32", arrowstyle="->",
                                mutation_scale=10, color=ACCENT)
            )  # fmt: skip
            axes.text(centre, 0, "+", ha="center", va="center", fontsize=11, color=ACCENT)
            axes.add_patch(plt.Circle((centre, 0), 0.14, fill=False, color=ACCENT))
            axes.plot([end, centre - 0.14], [0, 0], color=INK)
            axes.plot([centre + 0.14, centre + 0.5], [0, 0], color=INK)
            x, left = centre + 0.5, centre
        else:
            axes.plot([end, end + 0.5], [0, 0], color=INK)
            x = end + 0.5
            left = left if config.pre_norm else x - 0.4
    axes.set(xlim=(-0.2, 12.6), ylim=(-0.5, 1.1))
    axes.axis("off")


def denoising_mask() -> Figure:
    """Who may attend to whom: three denoising groups of four queries, then six matching queries."""
    groups, group_size, matching = 3, 4, 6
    mask = denoising_attention_mask(groups, group_size, matching)
    figure, axes = plt.subplots(figsize=(4.6, 4.6))
    axes.imshow(mask, cmap="Greys", vmin=0, vmax=1.6)
    for edge in [*range(0, groups * group_size + 1, group_size)]:
        axes.axhline(edge - 0.5, color=ACCENT, linewidth=0.8)
        axes.axvline(edge - 0.5, color=ACCENT, linewidth=0.8)
    names = [f"group {g + 1}" for g in range(groups)] + ["matching"]
    middle = [g * group_size + group_size / 2 - 0.5 for g in range(groups)] + [groups * group_size + matching / 2 - 0.5]
    axes.set_xticks(middle, names, fontsize=8)
    axes.set_yticks(middle, names, fontsize=8, rotation=90, va="center")
    axes.set(xlabel="key", ylabel="query")
    axes.set_title("True (dark): may not attend", fontsize=9)
    return figure


def sine_positions() -> Figure:
    """Some channels of the sine embedding on a padded map, and how alike its cells are to one of them."""
    height, width = 18, 26
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, 14:], mask[:, :, 20:] = True, True
    embedding = sine_position_embedding(mask, num_pos_feats=64, temperature=20.0)[0]
    figure, panels = plt.subplots(1, 4, figsize=(13, 2.8))
    shown = {"y, channel 0 (sin)": 0, "y, channel 21 (cos)": 21, "x, channel 64 (sin)": 64}
    for axes, (title, channel) in zip(panels, shown.items(), strict=False):
        axes.imshow(embedding[channel], cmap="RdBu", vmin=-1, vmax=1)
        axes.set_title(title, fontsize=9)
    i, j = 5, 7
    similar = (embedding * embedding[:, i, j, None, None]).sum(0)
    panels[3].imshow(similar, cmap="viridis")
    panels[3].plot(j, i, "s", color=ACCENT, markersize=4)
    panels[3].set_title("inner product with the marked cell", fontsize=9)
    for axes in panels:
        axes.add_patch(Rectangle((-0.5, -0.5), 20, 14, fill=False, edgecolor=INK, linestyle="--"))
        axes.set(xticks=[], yticks=[])
    return figure


def padded_references() -> Figure:
    """The same cell of a fine map, seen in each level of a padded image: encoder reference points."""
    image_height, image_width, strides = 88, 144, (8, 16, 32)
    padded_height, padded_width = 128, 192
    shapes = torch.tensor([(padded_height // s, padded_width // s) for s in strides])
    masks = []
    for stride, (height, width) in zip(strides, shapes.tolist(), strict=True):
        mask = torch.ones(1, height, width, dtype=torch.bool)
        mask[:, : -(-image_height // stride), : -(-image_width // stride)] = False
        masks.append(mask)
    ratios = torch.stack([valid_ratios(mask) for mask in masks], 1)
    cell = 5 * int(shapes[0, 1]) + 12
    references = encoder_reference_points(shapes, ratios)[0, cell]
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.2))
    for axes, mask, reference, ratio in zip(panels, masks, references, ratios[0], strict=True):
        height, width = mask.shape[1:]
        grid(axes, height, width, mask[0])
        axes.plot(reference[0] * width, reference[1] * height, "o", color=ACCENT, markersize=6)
        x, y = reference.tolist()
        title = f"{height} x {width}, valid ratio ({ratio[0]:.3f}, {ratio[1]:.3f})\nreference ({x:.3f}, {y:.3f})"
        axes.set_title(title, fontsize=9)
    return figure


def patches() -> Figure:
    """Which part of the image a token of the Vision Transformer sees, in the order of the tokens."""
    size, patch = (48, 80), 16
    embedding = PatchEmbedding(patch, 1, 1)
    with torch.no_grad():
        for parameter in embedding.parameters():
            parameter.fill_(0)
        embedding.proj.weight.fill_(1 / patch**2)
    rows, columns = size[0] // patch, size[1] // patch
    order = torch.arange(rows * columns).view(rows, columns).double()
    image = order.repeat_interleave(patch, 0).repeat_interleave(patch, 1)[None, None].float()
    with torch.no_grad():
        tokens = embedding(image)[0, :, 0].round().int().tolist()
    figure, axes = plt.subplots(figsize=(5, 3))
    axes.imshow(image[0, 0], cmap="Pastel1")
    for token, seen in enumerate(tokens):
        i, j = divmod(seen, columns)
        axes.text(
            j * patch + patch / 2, i * patch + patch / 2, f"token {token + 1}", ha="center", va="center", fontsize=8
        )
    axes.set(xticks=range(0, size[1] + 1, patch), yticks=range(0, size[0] + 1, patch))
    axes.set_title("patches by rows; token 0 is the class token", fontsize=9)
    return figure
