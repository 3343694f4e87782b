"""The picture of chapter 15: queries, boxes, what each pair costs, and the cheapest assignment."""

from __future__ import annotations

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from detr_reference.losses.boxes import box_cxcywh_to_xyxy
from detr_reference.losses.matching import focal_class_cost, giou_cost, hungarian_matching, l1_cost
from drawings.style import ACCENT, BLUE, GREY, INK, centred, image_frame

BOXES = torch.tensor([[0.28, 0.42, 0.22, 0.36], [0.50, 0.47, 0.20, 0.34], [0.80, 0.66, 0.24, 0.36]])
LABELS = torch.tensor([0, 0, 1])
QUERIES = torch.tensor(
    [
        [0.12, 0.80, 0.16, 0.20],
        [0.24, 0.46, 0.24, 0.34],
        [0.37, 0.45, 0.20, 0.36],  # between two boxes, and the best for both
        [0.78, 0.16, 0.28, 0.16],
        [0.79, 0.68, 0.28, 0.32],
        [0.86, 0.57, 0.24, 0.32],
    ]
)
SCORES = torch.tensor([[0.1, 0.1], [0.2, 0.1], [0.8, 0.1], [0.1, 0.2], [0.1, 0.8], [0.1, 0.7]])


def matching() -> Figure:
    """Queries, boxes and what each pair costs, with the cheapest assignment marked."""
    logits = SCORES.logit()
    pairs = hungarian_matching(logits[None], QUERIES[None], LABELS, BOXES, torch.tensor([len(BOXES)]))
    chosen = dict(zip(pairs["query"].tolist(), pairs["target"].tolist(), strict=True))
    cost = 2 * focal_class_cost(logits)[:, LABELS] + 5 * l1_cost(QUERIES, BOXES) + 2 * giou_cost(QUERIES, BOXES)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), gridspec_kw={"width_ratios": (1.5, 1), "wspace": 0.3})
    draw_image(left, chosen)
    draw_costs(right, cost, chosen)
    return figure


def draw_image(axes: Axes, chosen: dict[int, int]) -> None:
    image_frame(axes)
    for index, box in enumerate(BOXES):
        centred(axes, box, edgecolor=INK, linewidth=2.2)
        _, top, right, _ = box_cxcywh_to_xyxy(box).tolist()
        axes.text(right, top - 0.015, f"box {index}", ha="right", va="bottom", fontsize=9)
    for index, query in enumerate(QUERIES):
        colour, line = (BLUE, "-") if index in chosen else (GREY, "--")
        centred(axes, query, linewidth=1.5, edgecolor=colour, linestyle=line)
        left, top, _, _ = box_cxcywh_to_xyxy(query).tolist()
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.text(left, top, index, ha="center", va="center", fontsize=10, color=colour, bbox=paper)
    names = {
        "box": Line2D([], [], color=INK, linewidth=2.2),
        "query with a box": Line2D([], [], color=BLUE),
        "query without": Line2D([], [], color=GREY, linestyle="--"),
    }
    axes.legend(
        names.values(), names, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=3, fontsize=9, frameon=False
    )


def draw_costs(axes: Axes, cost: Tensor, chosen: dict[int, int]) -> None:
    axes.imshow(cost, cmap="Greys", vmin=cost.min() - 0.5, vmax=3 * cost.max(), aspect="auto")
    for query, row in enumerate(cost.tolist()):
        for box, size in enumerate(row):
            axes.text(box, query, f"{size:.2f}", ha="center", va="center", fontsize=9)
    for box, query in enumerate(cost.argmin(0).tolist()):
        centred(axes, torch.tensor([box, query, 0.8, 0.72]), edgecolor=ACCENT, linestyle=":")
    for query, box in chosen.items():
        centred(axes, torch.tensor([box, query, 0.92, 0.88]), edgecolor=BLUE, linewidth=2)
    axes.set_xticks(range(len(BOXES)), [f"{box}\nclass {label}" for box, label in enumerate(LABELS.tolist())])
    scores = [f"{query}   ({first:.1f}, {second:.1f})" for query, (first, second) in enumerate(SCORES.tolist())]
    axes.set_yticks(range(len(QUERIES)), scores)
    axes.set(xlabel="box", ylabel="query (its scores of class 0 and 1)")
    best = "cost of every pair; dotted: the best query of each box"
    total = sum(cost[query, box].item() for query, box in chosen.items())
    assignment = f"blue: the cheapest assignment, {total:.2f}; box after box it is {box_after_box(cost):.2f}"
    axes.set_title(f"{best}\n{assignment}", fontsize=9)


def box_after_box(cost: Tensor) -> float:
    """What it costs if each box in turn takes the best query that is left."""
    left, total = cost.clone(), 0.0
    for box in range(cost.shape[1]):
        query = int(left[:, box].argmin())
        total += float(cost[query, box])
        left[query] = torch.inf
    return total
