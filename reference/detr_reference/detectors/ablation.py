"""The ablation of DINO's paper as configurations: what each of its ideas is worth, one row after another.

Source: DINO, arXiv:2203.03605, section 4.4, table 4: ResNet-50, four scales, 12 epochs on COCO. See spec chapter 19.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from detr_reference.detectors.config import DINOConfig


@dataclass(frozen=True)
class AblationRow:
    """One row of the table.

    Attributes:
        name: as in the paper.
        published_ap: AP on COCO val2017.
        config: the configuration that gives the row.
        unsaid: in what the paper's model differs from the configuration, or may, as far as is known; "" if in nothing.
    """

    name: str
    published_ap: float
    config: DINOConfig
    unsaid: str = ""


# DN-DETR's noise, with the 0.2 of its labels as DINO writes it: twice the probability.
_OPTIMIZED = DINOConfig(
    query_selection="static",
    look_forward_twice=False,
    denoising="plain",
    label_noise_ratio=0.4,
    box_noise_scale=0.4,
)
_PURE = replace(_OPTIMIZED, query_selection="pure")
_MIXED = replace(_PURE, query_selection="mixed")
_TWICE = replace(_MIXED, look_forward_twice=True)
_DINO = DINOConfig()

_NOISE = "how much noise was used without negatives is not said; these are DN-DETR's numbers"

ABLATION = (
    AblationRow(
        "DN-DETR",
        43.4,
        replace(_OPTIMIZED, num_queries=300),
        "DN-Deformable-DETR multiplies query positions by an MLP of the content from the second layer on, has five "
        "denoising groups whatever the number of boxes, and a channel that tells denoising from matching queries",
    ),
    AblationRow("optimized DN-DETR", 44.9, _OPTIMIZED, f"what was optimized is not listed beside the table; {_NOISE}"),
    AblationRow("+ pure query selection", 46.5, _PURE, _NOISE),
    AblationRow("+ mixed query selection", 47.0, _MIXED, _NOISE),
    AblationRow("+ look forward twice", 47.4, _TWICE, _NOISE),
    AblationRow("+ contrastive denoising (DINO)", 47.9, _DINO),
)
