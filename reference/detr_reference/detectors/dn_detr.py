"""DN-DETR: DAB-DETR that is also trained to repair noised true boxes.

Source: DN-DETR, arXiv:2203.01305; read with IDEA-Research/DN-DETR, models/DN_DAB_DETR/DABDETR.py, and detrex,
projects/dn_detr/modeling/dn_detr.py. Chapter 17; the noise itself: chapter 13.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from detr_reference.denoising.dn_denoising import dn_denoising, with_indicator
from detr_reference.detectors.config import DNDETRConfig
from detr_reference.detectors.dab_detr import DABDETR
from detr_reference.every_block.parameters import with_parameters
from detr_reference.features.backbone import Backbone
from detr_reference.losses.batch_targets import BatchTargets, targets_if_given


class DNDETR(DABDETR):
    """decoder(denoising queries beside matching queries, under a mask); what matching queries predict does not change

    Parameters: those of `DABDETR`, and
        label_enc.weight: (num_classes + 1, embed_dim - 1), the content of a denoising query by its noised label, and of
            every matching query in the last row. One channel more says which kind a query is.
    """

    config: DNDETRConfig

    def __init__(self, config: DNDETRConfig, backbone: Backbone | None = None) -> None:
        super().__init__(config, backbone)
        self.label_enc = nn.Embedding(config.num_classes + 1, config.embed_dim - 1)

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        mask: Bool[Tensor, "batch height width"],
        target_labels: Int[Tensor, " box"] | None = None,
        target_boxes: Float[Tensor, "box 4"] | None = None,
        target_counts: Int[Tensor, " batch"] | None = None,
    ) -> dict[str, Float[Tensor, "layer batch query _"]]:
        """The predictions of every decoder layer; in training also what it makes of noised targets.

        Args:
            images, mask: as in `DABDETR.forward`.
            target_labels, target_boxes, target_counts: class and (x, y, w, h) of every box, image after image, and the
                number of boxes of each image. All three or none; used in training mode alone.

        Returns:
            pred_logits, pred_boxes: as in `DABDETR.forward`.
            dn_logits, dn_boxes: the same of the D denoising queries, (layer, batch, D, num_classes) and
                (layer, batch, D, 4); in training mode, given targets.

        Raises:
            ValueError: shapes disagree, a label is no class, or only some of the targets are given.
            TypeError: mask is not boolean, or labels or counts are not int64.
        """
        cells = self.cells(images, mask)
        references = self.anchors(batch=len(images))
        content = with_indicator(self.label_enc.weight[-1:], denoising=False).expand(*references.shape[:2], -1)
        given = (target_labels, target_boxes, target_counts) if self.training else (None, None, None)
        targets = targets_if_given(*given, batch=len(images), num_classes=self.config.num_classes)
        if targets is None:
            return self.predictions(*self.transformer(cells, content, references, self.bbox_embed))

        noised = self._noised(targets)
        content = torch.cat((noised["content"], content), dim=1)
        references = torch.cat((noised["references"].to(references.dtype).sigmoid(), references), dim=1)
        decoded = self.transformer(cells, content, references, self.bbox_embed, noised["attn_mask"])
        return _apart(self.predictions(*decoded), noised["content"].shape[1])

    def _noised(self, targets: BatchTargets) -> dict[str, Tensor]:
        """The denoising queries and the mask of the self-attentions."""
        return dn_denoising(
            *targets,
            with_indicator(self.label_enc.weight[:-1], denoising=True),
            num_queries=self.config.num_queries,
            groups=self.config.denoising_groups,
            label_noise_probability=self.config.label_noise_probability,
            box_noise_scale=self.config.box_noise_scale,
        )


def _apart(predictions: Mapping[str, Tensor], denoising: int) -> dict[str, Tensor]:
    """The predictions of the first `denoising` queries under names of their own."""
    of_noised = {name.replace("pred", "dn"): each[:, :, :denoising] for name, each in predictions.items()}
    return {name: each[:, :, denoising:] for name, each in predictions.items()} | of_noised


def build(config: DNDETRConfig, state_dict: Mapping[str, Tensor] | None = None) -> DNDETR:
    """The model with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(DNDETR(config), state_dict)
