"""Pictures of DINO, chapters 12 and 19: where gradients go in its decoder, and how the model is put together."""

from __future__ import annotations

from unittest import mock

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor

from detr_reference.queries import dino_decoder
from detr_reference.queries.box_refinement import refine_boxes
from detr_reference.queries.look_forward_twice import References
from drawings.style import ACCENT, COOL, CREAM, FAINT, INK, WARM

LAYERS = 4
HALF = 1.05  # from the middle of a stage to its border
KINDS = {"has parameters": COOL, "has none": CREAM, "in training alone": WARM}


def gradient_band() -> Figure:
    """Which prediction's loss reaches which box head: looking forward twice, once, and with nothing detached."""
    cases = {
        "look forward twice: a band": band(twice=True),
        "once: the diagonal": band(twice=False),
        "nothing detached (wrong): a triangle": undetached_band(),
    }
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.2))
    caption = "size of the gradient that the boxes of a prediction send to the parameters of a box head"
    figure.suptitle(caption, fontsize=9, y=1.02)
    largest = max(float(gradients.max()) for gradients in cases.values())
    scale = {"cmap": mpl.colormaps["Blues"].with_extremes(bad="white"), "norm": LogNorm(largest / 100, largest * 20)}
    for axes, (title, gradients) in zip(panels, cases.items(), strict=True):
        axes.imshow(gradients.masked_fill(gradients == 0, torch.nan), **scale)
        for i, row in enumerate(gradients.tolist()):
            for j, size in enumerate(row):
                text, colour = (f"{size:.1f}", INK) if size else ("0", FAINT)
                axes.text(j, i, text, ha="center", va="center", fontsize=9, color=colour)
        axes.set(xlabel="box head", ylabel="pred_boxes", xticks=range(LAYERS), yticks=range(LAYERS))
        axes.set_title(title, fontsize=9)
    return figure


def band(*, twice: bool) -> Tensor:
    """(layer, head): the size of the gradient that one prediction's boxes send to the parameters of one box head."""
    torch.manual_seed(12)
    config = dino_decoder.DINODecoderConfig(
        8, 2, 16, LAYERS, num_levels=2, num_points=2, num_classes=3, look_forward_twice=twice
    )
    decoder = dino_decoder.build(config)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    shapes, starts = torch.tensor([[4, 5], [2, 3]]), torch.tensor([0, 20])
    boxes = decoder(
        torch.randn(1, 6, 8),
        torch.randn(1, 26, 8),
        torch.rand(1, 6, 4),
        spatial_shapes=shapes,
        level_start_index=starts,
        valid_ratios=torch.ones(1, 2, 2),
    )["pred_boxes"]
    toward = torch.randn_like(boxes[0])
    sizes = torch.zeros(LAYERS, LAYERS)
    for i in range(LAYERS):
        decoder.zero_grad()
        boxes[i].backward(toward, retain_graph=True)
        for j, head in enumerate(decoder.bbox_embed):
            gradients = [parameter.grad.norm() for parameter in head.parameters() if parameter.grad is not None]
            sizes[i, j] = torch.stack(gradients).norm() if gradients else 0
    return sizes


def undetached_band() -> Tensor:
    """As `band`, of a decoder that feeds and returns one and the same box."""

    def undetached(delta: Tensor, references: References, *, twice: bool, eps: float) -> References:
        refined = refine_boxes(delta, references.fed, eps=eps)
        return References(fed=refined, returned=refined)

    with mock.patch.object(dino_decoder, "next_references", undetached):
        return band(twice=True)


def dino_stages() -> Figure:
    """The stages of DINO with the names and numbers of the pseudocode, and where no gradient passes."""
    figure, axes = plt.subplots(figsize=(13, 6.4))
    features, first, content, denoising, mask = 5.4, 3.55, 2.2, 0.95, -0.35  # rows, from above
    left, middle, right, joint, decoder, end = 1.3, 3.75, 6.2, 8.55, 10.4, 13.0  # columns

    stage(axes, left, features, "1 backbone, neck", COOL)
    stage(axes, middle, features, "2 flatten_levels", COOL)
    stage(axes, right, features, "3 encoder", COOL)
    stage(axes, left, first, "4 encoder_proposals", CREAM)
    stage(axes, middle, first, "5 enc_output, norm\nclass_embed[n]\nbbox_embed[n]", COOL)
    stage(axes, right, first, "6 selected:\nthe best Q cells", CREAM)
    stage(axes, right, content, "7 tgt_embed", COOL)
    stage(axes, left, denoising, "8 G groups of\npositives, negatives", WARM)
    stage(axes, middle, denoising, "9 noised_labels\nnoised_boxes", WARM)
    stage(axes, right, denoising, "9 label_enc[labels]\nlogit(boxes)", WARM)
    stage(axes, right, mask, "10 denoising_\nattention_mask", WARM)
    stage(axes, joint, 2.2, "[ denoising | matching ]", CREAM, size=(0.5, 3.5), rotation=90)
    parts = "ref_point_head\nself-attention\ndeformable attention\nclass_embed[i]\nbbox_embed[i]"
    stage(axes, decoder, 2.2, f"12 layer_i\ni = 0 ... n - 1\n\n{parts}", COOL, size=(2.1, 2.6))
    stage(axes, end, 4.25, "13 enc_logits\nenc_boxes", CREAM)
    stage(axes, end, 2.85, "13 pred_logits\npred_boxes", CREAM)
    stage(axes, end, 1.45, "13 dn_logits\ndn_boxes", WARM)

    for row in (features, first, denoising):
        flow(axes, (left + HALF, row), (middle - HALF, row))
        flow(axes, (middle + HALF, row), (right - HALF, row))
    flow(axes, (-0.5, features), (left - HALF, features), name="images\nmask")
    flow(axes, (-0.5, denoising), (left - HALF, denoising), name="targets")
    flow(axes, (right + HALF, features), (decoder + 0.4, features), (decoder + 0.4, 3.5))
    flow(axes, (joint - 0.6, features), (joint - 0.6, 4.65), (left, 4.65), (left, first + 0.49))
    axes.text(joint - 0.4, features + 0.08, "memory", fontsize=9)
    flow(axes, (right, first + 0.49), (right, 4.25), (end - HALF, 4.25))
    for row in (first, content, denoising):
        flow(axes, (right + HALF, row), (joint - 0.3, row))
    axes.text(right + HALF + 0.05, first + 0.16, "references", fontsize=8)
    axes.text(right + HALF + 0.04, content + 0.1, "content", fontsize=8)
    axes.text(right + HALF + 0.04, denoising + 0.1, "both", fontsize=8)
    flow(axes, (left, denoising - 0.49), (left, mask), (right - HALF, mask))
    flow(axes, (right + HALF, mask), (decoder, mask), (decoder, 0.85))
    axes.text(joint - 0.4, mask + 0.08, "attn_mask", fontsize=9)
    flow(axes, (joint + 0.3, 2.2), (decoder - 1.09, 2.2))
    flow(axes, (decoder - 0.1, 3.55), (decoder - 0.1, 3.85), (decoder - 0.7, 3.85), (decoder - 0.7, 3.55))
    axes.text(decoder - 0.4, 4.0, "fed", fontsize=8, ha="center")
    flow(axes, (decoder + 1.09, 2.85), (end - HALF, 2.85))
    flow(axes, (decoder + 1.09, 1.45), (end - HALF, 1.45))
    crosses = torch.tensor([(joint - 0.55, first), (decoder - 0.4, 3.85)])
    axes.plot(crosses[:, 0], crosses[:, 1], "x", color=ACCENT, markersize=8, markeredgewidth=2)

    names = {name: Rectangle((0, 0), 1, 1, facecolor=colour, edgecolor=INK) for name, colour in KINDS.items()}
    names["detach: no gradient passes"] = Line2D([], [], color=ACCENT, marker="x", linestyle="", markersize=8, mew=2)
    axes.legend(
        names.values(), names, loc="upper center", bbox_to_anchor=(0.5, 0.04), ncols=4, fontsize=9, frameon=False
    )
    axes.set(xlim=(-0.6, 14.15), ylim=(-1.3, 5.9))
    axes.axis("off")
    return figure


def stage(axes: Axes, x: float, y: float, name: str, colour: str, *, size: tuple[float, float] = (2.02, 0.9),
          rotation: float = 0) -> None:  # fmt: skip
    width, height = size
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0.04", facecolor=colour))
    axes.text(x, y, name, ha="center", va="center", fontsize=9, rotation=rotation)


def flow(axes: Axes, *points: tuple[float, float], name: str = "") -> None:
    """An arrow along these points, with a name above its beginning."""
    axes.plot([x for x, _ in points[:-1]], [y for _, y in points[:-1]], color=INK, linewidth=1.1)
    axes.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "->", "color": INK, "shrinkA": 0, "shrinkB": 0})
    axes.text(points[0][0], points[0][1] + 0.05, name, fontsize=9, va="bottom")
