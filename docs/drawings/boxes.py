"""Pictures of boxes, chapters 11, 13 and 14: proposals, noise, overlap."""

from __future__ import annotations

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from detr_reference.denoising.contrastive_denoising import contrastive_denoising, noised_boxes
from detr_reference.losses.boxes import box_cxcywh_to_xyxy, box_iou, generalized_box_iou
from detr_reference.queries.two_stage_proposals import encoder_proposals
from drawings.style import ACCENT, BLUE, COOL, CREAM, FAINT, INK, PADDING, WARM, centred, cornered, image_frame


def encoder_proposal_boxes() -> Figure:
    """Which cells of two padded images propose a box, and how large it is on each level."""
    strides, canvas = (8, 16, 32, 64), (320, 448)
    images = ((320, 416), (240, 304))  # height and width before padding
    shapes = torch.tensor([(-(-canvas[0] // s), -(-canvas[1] // s)) for s in strides])
    padding = []
    for stride, (rows, columns) in zip(strides, shapes.tolist(), strict=True):
        mask = torch.ones(len(images), rows, columns, dtype=torch.bool)
        for image, (height, width) in enumerate(images):
            mask[image, : -(-height // stride), : -(-width // stride)] = False
        padding.append(mask)
    cells = torch.cat([mask.flatten(1) for mask in padding], 1)
    proposals = encoder_proposals(torch.zeros(*cells.shape, 1), cells, shapes)["proposals"]
    levels = proposals.split(shapes.prod(-1).tolist(), 1)

    figure, panels = plt.subplots(2, 4, figsize=(12, 4.6), gridspec_kw={"wspace": 0.06, "hspace": 0.08})
    for level, (rows, columns) in enumerate(shapes.tolist()):
        title = f"level {level}: {rows} x {columns} cells\nsides {0.05 * 2**level:g} of the image"
        panels[0, level].set_title(title, fontsize=9)
        for image in range(len(images)):
            draw_proposals(panels[image, level], levels[level][image].view(rows, columns, 4), padding[level][image])
    for image, axes in enumerate(panels[:, 0]):
        axes.set_ylabel(f"image {image}", fontsize=9)
    names = {
        "centre of a valid proposal": Line2D([], [], color=COOL, marker=".", linestyle=""),
        "on the border: +inf": Line2D([], [], color=ACCENT, marker="x", linestyle="", markersize=4),
        "padding: +inf": Rectangle((0, 0), 1, 1, facecolor=PADDING),
        "box of the marked cell": Rectangle((0, 0), 1, 1, fill=False, edgecolor=INK, linewidth=1.4),
    }
    figure.legend(names.values(), names, loc="lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def draw_proposals(axes: Axes, proposals: Tensor, padding: Tensor) -> None:
    """One level of one image, in units of its cells, with the box of the cell in the middle."""
    rows, columns = padding.shape
    height, width = int((~padding[:, 0]).sum()), int((~padding[0]).sum())
    valid = proposals.isfinite().all(-1)
    axes.add_patch(Rectangle((0, 0), columns, rows, facecolor=PADDING))
    axes.add_patch(Rectangle((0, 0), width, height, facecolor="white"))
    for chosen, colour, marker in ((valid, COOL, "."), (~valid & ~padding, ACCENT, "x")):
        i, j = chosen.nonzero(as_tuple=True)
        axes.plot(j + 0.5, i + 0.5, marker, color=colour, markersize=2 + 10 / rows, markeredgewidth=0.7)
    box = proposals[height // 2, width // 2].sigmoid() * torch.tensor([width, height, width, height])
    centred(axes, box, edgecolor=INK, linewidth=1.4)
    axes.plot(*box[:2], "o", color=INK, markersize=3)
    axes.set(xlim=(0, columns), ylim=(rows, 0), xticks=[], yticks=[], aspect=1)


def noise_of_denoising() -> Figure:
    """One group of denoising queries on an image, and where the noise puts one corner of a box."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), gridspec_kw={"width_ratios": (1.2, 1)})
    boxes = torch.tensor([[0.27, 0.36, 0.22, 0.3], [0.68, 0.66, 0.3, 0.2]])
    torch.manual_seed(241)  # of the negatives, one is a box, and one has no width
    made = contrastive_denoising(
        torch.zeros(2, dtype=torch.int64),
        boxes,
        torch.tensor([2]),
        torch.zeros(1, 4),
        num_queries=1,
        denoising_number=2,
    )
    positives, negatives = made["references"][0].sigmoid().chunk(2)
    image_frame(left)
    for index in range(len(boxes)):
        centred(left, boxes[index], edgecolor=INK, linewidth=2.2)
        centred(left, positives[index], edgecolor=BLUE, linewidth=1.5)
        centred(left, negatives[index], edgecolor=ACCENT, linewidth=1.5, linestyle="--")
        x, _, _, bottom = box_cxcywh_to_xyxy(boxes[index]).tolist()
        left.text(x, bottom + 0.02, f"box {index}", va="top", fontsize=9)
    x, y, _, h = negatives[1].tolist()
    left.annotate(
        "no width:\nits corners have changed places",
        xy=(x, y - 0.45 * h),
        xytext=(x + 0.06, 0.28),
        ha="center",
        fontsize=9,
        color=ACCENT,
        arrowprops={"arrowstyle": "->", "color": ACCENT},
    )
    names = {
        "true box": Line2D([], [], color=INK, linewidth=2.2),
        "its positive": Line2D([], [], color=BLUE),
        "its negative": Line2D([], [], color=ACCENT, linestyle="--"),
    }
    left.legend(
        names.values(), names, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=3, fontsize=9, frameon=False
    )
    left.set_title("one group of an image with two boxes", fontsize=9)
    places_of_a_corner(right)
    return figure


def places_of_a_corner(axes: Axes) -> None:
    """The upper left corner of one box under noise, drawn many times."""
    torch.manual_seed(5)
    box = torch.tensor([0.5, 0.5, 0.3, 0.24])
    positives, negatives = box_cxcywh_to_xyxy(noised_boxes(box.expand(1, 2, 260, 4), 1.0)[0])
    axes.plot(positives[:, 0], positives[:, 1], ".", color=BLUE, markersize=2.5)
    axes.plot(negatives[:, 0], negatives[:, 1], ".", color=ACCENT, markersize=2.5)
    left, top, right, bottom = box_cxcywh_to_xyxy(box).tolist()
    width, height = right - left, bottom - top
    for reach in (0.5, 1):
        centred(axes, torch.tensor([left, top, 2 * reach * width, 2 * reach * height]), edgecolor=FAINT)
    centred(axes, box, edgecolor=INK, linewidth=2.2)
    axes.plot(left, top, "s", color=INK, markersize=5)
    axes.set(xlim=(left - width - 0.02, right + 0.02), ylim=(bottom + 0.02, top - height - 0.02), aspect=1)
    axes.axis("off")
    of_positives = "where noise puts the upper left corner: within half a side of a positive,"
    of_negatives = "between half a side and a whole one of a negative, along both axes"
    axes.set_title(f"{of_positives}\n{of_negatives}", fontsize=9)


STILL = torch.tensor([[0.0, 0.0, 1.6, 1.4]])


def slid(shifts: Tensor) -> Tensor:
    """The box that slides, at each of these places."""
    return torch.tensor([0.0, 0.7, 1.6, 1.9]) + shifts[:, None] * torch.tensor([1.0, 0.0, 1.0, 0.0])


def sliding_boxes() -> Figure:
    """IoU and GIoU of a box that slides past another one."""
    shifts = torch.linspace(0, 5, 251)
    marked = {"a": 0.5, "b": 1.3, "c": 3.2}
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2), gridspec_kw={"width_ratios": (1, 1.1)})
    cornered(left, STILL[0], fill=True, facecolor=CREAM, edgecolor=INK, linewidth=2)
    for name, box in zip(marked, slid(torch.tensor(list(marked.values()))), strict=True):
        cornered(left, box, fill=True, facecolor=COOL, alpha=0.35)
        cornered(left, box, edgecolor=BLUE, linewidth=1.4)
        left.text(box[0] + 0.1, box[3] - 0.1, name, fontsize=10)
    hull = torch.cat((torch.minimum(STILL[0], box)[:2], torch.maximum(STILL[0], box)[2:]))
    cornered(left, hull, edgecolor=ACCENT, linestyle="--")
    left.text(hull[2], -0.06, "hull of c and the box at rest", ha="right", va="bottom", fontsize=9, color=ACCENT)
    left.set(xlim=(-0.1, 5), ylim=(2.3, -0.5), aspect=1)
    left.axis("off")
    left.set_title("a box slides past one at rest", fontsize=9)
    right.axhline(0, color=FAINT, linewidth=0.8)
    right.axvline(1.6, color=FAINT, linewidth=0.8, linestyle=":")
    right.text(1.65, 0.5, "apart from here on", fontsize=9)
    right.plot(shifts, box_iou(STILL, slid(shifts))[0], color=WARM, label="IoU", linewidth=2)
    right.plot(shifts, generalized_box_iou(STILL, slid(shifts))[0], color=BLUE, label="GIoU", linewidth=2)
    for name, shift in marked.items():
        giou = generalized_box_iou(STILL, slid(torch.tensor([shift]))).item()
        right.plot(shift, giou, "o", color=BLUE, markersize=5)
        right.text(shift - 0.05, giou - 0.05, name, ha="right", va="top", fontsize=10)
    right.set(xlabel="shift", xlim=(0, 5), ylim=(-0.7, 0.7))
    right.legend(fontsize=9, frameon=False)
    right.set_title("apart, IoU has no slope; GIoU says which way is nearer", fontsize=9)
    return figure
