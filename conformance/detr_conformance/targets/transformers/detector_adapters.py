"""transformers' detectors behind the spec's signatures; what is added is said in `detectors`."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest import mock

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import (
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
)

from detr_reference.checkpoints.names import NameTable
from detr_reference.checkpoints.renaming import original_names
from detr_reference.checkpoints.tables import transformers_deformable_detr, transformers_detr
from detr_reference.checkpoints.tables.neck import placed
from detr_reference.checkpoints.tables.parts import THIRDS
from detr_reference.features.image_tokens import check_images

Images = Float[Tensor, "batch 3 height width"]
Mask = Bool[Tensor, "batch height width"]
Parts = dict[str, Tensor | tuple[Tensor, ...]]

_this_thread = threading.local()  # what hooks find in one call, apart from calls in other threads


class AdaptedDetr(nn.Module):
    """DETR with the predictions of all layers."""

    table = transformers_detr.TABLE

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        self.detector = DetrForObjectDetection(DetrConfig(**sizes))
        for layer in self.detector.model.decoder.layers[:-1]:
            layer.register_forward_hook(self._predict)

    def forward(self, images: Images, mask: Mask) -> dict[str, Tensor]:
        check_images(images, mask)
        _this_thread.earlier = []
        final = self.detector(images, pixel_mask=(~mask).long())
        predictions = [*_this_thread.earlier, (final.logits, final.pred_boxes)]
        _this_thread.earlier = []
        logits, boxes = (torch.stack(layers) for layers in zip(*predictions, strict=True))
        return {"pred_logits": logits, "pred_boxes": boxes}

    def _predict(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        """What the model would predict if this layer were its last."""
        hidden = self.detector.model.decoder.layernorm(output)
        boxes = self.detector.bbox_predictor(hidden).sigmoid()
        _this_thread.earlier.append((self.detector.class_labels_classifier(hidden), boxes))

    def spec_parameters(self) -> Parts:
        return parts(self.detector, self.table)


class AdaptedDeformableDetr(nn.Module):
    """Deformable DETR with the predictions of all layers and, in two stages, of all cells."""

    table = transformers_deformable_detr.TABLE

    def __init__(self, sizes: Mapping[str, Any], neck_groups: int) -> None:
        super().__init__()
        with _groups(neck_groups):
            detector = DeformableDetrForObjectDetection(DeformableDetrConfig(**sizes))
        _separate_class_heads(detector)
        # Each head by the name under which the model calls it; in front, so that stages are named so.
        self.class_heads, self.box_heads = (nn.ModuleList(_called(detector, kind)) for kind in ("class", "bbox"))
        self.detector = detector
        self.detector.loss_function = _keep

    def forward(self, images: Images, mask: Mask) -> dict[str, Tensor]:
        check_images(images, mask)
        found = self.detector(images, pixel_mask=(~mask).long(), labels=[])
        predictions: dict[str, Tensor] = _this_thread.__dict__.pop("predictions")
        if self.detector.config.two_stage:
            predictions["enc_logits"] = found.enc_outputs_class
            predictions["enc_boxes"] = found.enc_outputs_coord_logits.sigmoid()
        return predictions

    def spec_parameters(self) -> Parts:
        return parts(self.detector, self.table)


def _keep(*arguments: Any) -> tuple[None, None, None]:
    """A loss function: it is given the predictions of all layers."""
    *_, logits, boxes = arguments
    _this_thread.predictions = {"pred_logits": logits, "pred_boxes": boxes}
    return None, None, None


@contextmanager
def _groups(number: int) -> Iterator[None]:
    """Group norms that are made meanwhile have so many groups; the number 32 stands in transformers' code."""

    class Grouped(nn.GroupNorm):
        def __init__(self, _: int, channels: int) -> None:
            super().__init__(number, channels)

    with mock.patch.object(nn, "GroupNorm", Grouped):
        yield


def _separate_class_heads(detector: Any) -> None:
    """With box refinement every layer has a class head of its own, as when a file has them."""
    if detector.config.with_box_refine and not detector.config.two_stage:
        for number in range(1, len(detector.class_embed)):
            detector.class_embed[number] = copy.deepcopy(detector.class_embed[number])


def _called(detector: Any, kind: str) -> Iterator[nn.Module]:
    """The heads that are called: of each layer, or one for all, and of the first stage."""
    config, name = detector.config, f"{kind}_embed"
    own = getattr(detector, name)
    if not config.with_box_refine:  # tied anyway; as one module it is seen to be called for every layer
        setattr(detector, name, nn.ModuleList([own[0]] * config.decoder_layers))
        yield own[0]
        return
    yield from own[: config.decoder_layers]
    if config.two_stage:
        yield getattr(detector.model.decoder, name)[-1]


def parts(detector: nn.Module, table: NameTable) -> Parts:
    """transformers' own parameters under the reference's names; projections of query, key and value as three."""
    own: dict[str, Tensor] = {}
    for theirs, parameter in detector.named_parameters(remove_duplicate=False):
        ours = table.ours(theirs)
        assert ours is not None, theirs
        own.setdefault(ours, parameter)
    found: Parts = {}
    for name, tensor in placed(own).items():
        whole = name.partition(":")[0]
        found[whole] = tensor if whole == name else tuple(own[f"{whole}:{third}"] for third in THIRDS)
    return found


Adapted = TypeVar("Adapted", AdaptedDetr, AdaptedDeformableDetr)


def loaded(module: Adapted, frozen_stages: int, state_dict: Mapping[str, Tensor] | None) -> Adapted:
    """The module with copies of these parameters, in their dtype; the stem and these stages are not trained."""
    for name, several in module.spec_parameters().items():
        if name.startswith("backbone."):
            stage = 1 if name.startswith("backbone.conv1") else int(name[len("backbone.layer")])
            assert isinstance(several, Tensor)
            several.requires_grad_(stage > frozen_stages)
    if state_dict is not None:
        module.to(next(iter(state_dict.values())))
        theirs = module.detector.state_dict()
        module.detector.load_state_dict(original_names(module.table, state_dict, theirs))
    return module
