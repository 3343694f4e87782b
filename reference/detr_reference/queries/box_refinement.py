"""Iterative box refinement: each decoder layer corrects the box that it was given, instead of predicting a new one.

Source: Deformable DETR, arXiv:2010.04159, section 4.2 and appendix A.4; read with detrex, utils/misc.py
(`inverse_sigmoid`) and projects/dino/modeling/dino_transformer.py. Clauses: spec chapter 11.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def refine_boxes(
    delta: Float[Tensor, "*query 4"], reference: Float[Tensor, "*query coordinate"], *, eps: float = 1e-3
) -> Float[Tensor, "*query 4"]:
    """box = sigmoid(delta + inverse_sigmoid(reference)); a point (x, y) is added to the first two of delta alone

    Corrections are added before the sigmoid: whatever a head predicts, the box stays within the image, and one step
    of it moves a box near the border by little. A delta of 0 keeps the reference.

    Args:
        delta: what a box head predicts, in logits; infinite ones give 0 and 1.
        reference: (x, y) or (x, y, w, h), relative to the image, as they are, not their logits.
        eps: how near to 0 and 1 a reference counts, see `inverse_sigmoid`.

    Returns:
        (x, y, w, h) in [0, 1], in the wider dtype of the two. It is computed in float32 or wider: a logit rounded
        to bfloat16 would move a box by up to a pixel in 1300.

    Raises:
        ValueError: the last axis of delta is not 4, or that of reference neither 2 nor 4; their other axes differ;
            or eps is not between 0 and 0.5.
        TypeError: one of them is not floating.
    """
    _check_arguments(delta, reference, eps)
    dtype = torch.promote_types(delta.dtype, reference.dtype)
    wide = torch.promote_types(dtype, torch.float32)
    logit = inverse_sigmoid(reference.to(wide), eps)
    refined = delta.to(wide)
    if reference.shape[-1] == 2:
        refined = torch.cat((refined[..., :2] + logit, refined[..., 2:]), dim=-1)
    else:
        refined = refined + logit
    return refined.sigmoid().to(dtype)


def inverse_sigmoid(x: Float[Tensor, "*axes"], eps: float = 1e-3) -> Float[Tensor, "*axes"]:
    """logit(x) = log(max(x, eps) / max(1 - x, eps)), with x moved into [0, 1] first

    Both halves of the fraction are kept away from 0, so that a box on the border has a finite logit, of at most
    log(1 / eps). DINO uses 1e-3, Deformable DETR 1e-5, and their weights expect it.

    The gradient is that of the formula: 1 / x + 1 / (1 - x) between eps and 1 - eps; one of the two terms alone beyond;
    0 outside [0, 1].

    Raises:
        ValueError: eps is not between 0 and 0.5.
    """
    _check_eps(eps)
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def _check_eps(eps: float) -> None:
    if not 0 < eps < 0.5:
        raise ValueError(f"eps must lie between 0 and 0.5, got {eps}")


def _check_arguments(delta: Tensor, reference: Tensor, eps: float) -> None:
    _check_eps(eps)
    for name, tensor in (("delta", delta), ("reference", reference)):
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating, got {tensor.dtype}")
    if delta.ndim == 0 or delta.shape[-1] != 4:
        raise ValueError(f"delta must be (..., 4), got {tuple(delta.shape)}")
    if reference.shape not in {(*delta.shape[:-1], 2), (*delta.shape[:-1], 4)}:
        raise ValueError(
            f"reference must be {(*delta.shape[:-1], 2)} or {tuple(delta.shape)}, as delta says, "
            f"got {tuple(reference.shape)}"
        )
