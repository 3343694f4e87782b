"""Backbones of the transformers library for the detectors of this package: ConvNeXt, Swin, ViT and more.

Needs the transformers library, which nothing else in this package does; it is imported when a backbone is made.

Source: transformers, models/auto/modeling_auto.py (AutoBackbone) and backbone_utils.py. Chapter 17.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from detr_reference.features.backbone import Backbone


class AutoBackbone(Backbone):
    """features = the feature maps that a backbone of transformers names in `out_features`, from fine to coarse

    To be given to a detector as its `backbone`. It is built from a configuration and initialised, nothing is
    downloaded; load parameters into it with `load_state_dict`. All are trained, statistics of batch norms included.

    Parameters: model, the backbone under transformers' names.

    Args:
        config: fields of transformers' configuration, with its "model_type", such as "convnext", and "out_features",
            such as ["stage2", "stage3", "stage4"].

    Raises:
        ImportError: transformers is not installed.
        ValueError: the type is unknown or no backbone, or a field is refused; the error is transformers'.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        try:
            import transformers
        except ImportError as error:
            raise ImportError(
                "AutoBackbone needs the transformers library: pip install 'detr-spec[transformers]'"
            ) from error
        fields = {name: value for name, value in config.items() if name != "model_type"}
        self.model = transformers.AutoBackbone.from_config(
            transformers.AutoConfig.for_model(config["model_type"], **fields)
        )
        self.channels = tuple(self.model.channels)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch _channel _rows _columns"], ...]:
        """The feature maps; images as in `ResNet.forward`."""
        return tuple(self.model(images).feature_maps)
