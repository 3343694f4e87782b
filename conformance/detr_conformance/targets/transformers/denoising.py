"""The contrastive denoising of Hugging Face transformers, by model family. Read in transformers 5.23.

rt_detr, rt_detr_v2, d_fine and deimv2 hold one text of it. What the adapter adds:
- the list of targets of each image, split by the counts;
- a row of zeros behind the classes of the embedding, for empty slots. Their models have it too, but their
  initialisation (xavier_uniform_ of the whole table, modeling_rt_detr.py:1063) fills it with random numbers, which
  nothing trains;
- the boolean mask, where theirs is 0 and -inf;
- tensors without queries in place of None, which their models take for "no denoising";
- the conversion of references, which are float32, to the dtype of the boxes.

pp_doclayout_v2 and pp_doclayout_v3 hold the same text, and replace the table by one without that row
(modeling_pp_doclayout_v2.py:2088): with images of unlike numbers of boxes it raises IndexError. They do not provide it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from detr_conformance.target import TargetError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

FAMILIES = ("rt_detr", "rt_detr_v2", "d_fine", "deimv2")


def provides(family: str) -> dict[str, Callable[..., Any]]:
    """What a family provides of chapter 13, for `Target.provides`."""
    return {"contrastive_denoising": partial(contrastive_denoising, family)}


def variants(family: str) -> dict[str, str]:
    return {"denoising_eps": "1e-5"}


def contrastive_denoising(
    family: str,
    target_labels: Int[Tensor, " box"],
    target_boxes: Float[Tensor, "box 4"],
    target_counts: Int[Tensor, " batch"],
    label_embedding: Float[Tensor, "class embed"],
    *,
    num_queries: int,
    denoising_number: int = 100,
    label_noise_ratio: float = 0.5,
    box_noise_scale: float = 1.0,
) -> dict[str, Tensor]:
    """The family's denoising queries."""
    import torch.nn.functional as F

    counts = target_counts.tolist()
    pairs = zip(target_labels.split(counts), target_boxes.split(counts), strict=True)
    content, references, mask, _ = _source(family).get_contrastive_denoising_training_group(
        [{"class_labels": labels, "boxes": boxes} for labels, boxes in pairs],
        len(label_embedding),
        num_queries,
        partial(F.embedding, weight=F.pad(label_embedding, (0, 0, 0, 1)), padding_idx=len(label_embedding)),
        denoising_number,
        label_noise_ratio,
        box_noise_scale,
    )
    if content is None:
        return {
            "content": label_embedding.new_zeros(len(counts), 0, label_embedding.shape[1]),
            "references": target_boxes.new_zeros(len(counts), 0, 4),
            "attn_mask": target_counts.new_zeros(num_queries, num_queries).bool(),
        }
    return {"content": content, "references": references.to(target_boxes.dtype), "attn_mask": mask < 0}


def _source(family: str) -> Any:
    try:
        return importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    except ModuleNotFoundError as error:
        raise TargetError(f"this version of transformers has no {family}: {error}") from error
