"""The position embeddings of Hugging Face transformers, by model family. Read in transformers 5.23.

| group | families | the sine embedding |
|---|---|---|
| shaped | detr, conditional_detr, maskformer, mask2former, oneformer | is computed in the dtype asked for |
| | deformable_detr | the same, with an offset of -0.5; it alone has one |
| masked | table_transformer | is computed in float32 |
| configured | grounding_dino, mm_grounding_dino | the same; always normalises |
| | dab_detr | the same, with a temperature for each axis |

Six families hold one text for the embedding of boxes, seven another for the learned embedding. None has a level
embedding that could be called by itself. The embeddings of rt_detr, its successors and omdet_turbo take no mask and
have sines and cosines in blocks: another operation.

What the adapters add:
- `~` to the mask, since theirs is True, or 1, for valid cells, and with it the refusal of a mask that is not boolean;
- the conversion to the dtype asked for, in the groups masked and configured; their models do it after the call;
- a configuration with the number of channels and the temperature, which for dab_detr is that of both axes;
- NotImplementedError where a family always normalises;
- tables of the size asked for in the learned embedding, which has 50 rows and columns.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from detr_conformance.target import TargetError

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float
    from torch import Tensor, nn

    from detr_reference.positions.config import LearnedPositionEmbeddingConfig


@dataclass(frozen=True)
class Positions:
    """Where a family keeps its position embeddings.

    Attributes:
        prefix: how its class names begin.
        sine: the row of the table above, or "" if it has none.
        learned: how the name of its learned embedding begins, or "".
        boxes: whether it embeds boxes.
        offset: value of the variant `sine_offset`.
    """

    prefix: str
    sine: str = ""
    learned: str = ""
    boxes: bool = False
    offset: str = "0"


FAMILIES: dict[str, Positions] = {
    "detr": Positions("Detr", "shaped", "Detr"),
    "conditional_detr": Positions("ConditionalDetr", "shaped", "ConditionalDetr", boxes=True),
    "deformable_detr": Positions("DeformableDetr", "shaped", "DeformableDetr", offset="-0.5"),
    "dab_detr": Positions("DabDetr", "configured", boxes=True),
    "grounding_dino": Positions("GroundingDino", "configured", "GroundingDino", boxes=True),
    "mm_grounding_dino": Positions("MMGroundingDino", "configured", "MMGroundingDino", boxes=True),
    "table_transformer": Positions("TableTransformer", "masked", "TableTransformer"),
    "maskformer": Positions("MaskFormer", "shaped", "MaskFormerDetr"),
    "mask2former": Positions("Mask2Former", "shaped"),
    "oneformer": Positions("OneFormer", "shaped"),
    "lw_detr": Positions("LwDetr", boxes=True),
    "rf_detr": Positions("RfDetr", boxes=True),
}


def provides(family: str) -> dict[str, Callable[..., Any]]:
    """What a family provides of chapter 8, for `Target.provides`."""
    entry = FAMILIES[family]
    found: dict[str, Callable[..., Any]] = {}
    if entry.sine:
        found["sine_position_embedding"] = partial(sine, family)
    if entry.boxes:
        found["box_position_embedding"] = partial(box, family)
    if entry.learned:
        found["learned_position_embedding"] = partial(learned, family)
    return found


def variants(family: str) -> dict[str, str]:
    """The variants that belong to `provides(family)`, for `Target.variants`."""
    return {"sine_offset": FAMILIES[family].offset} if FAMILIES[family].sine else {}


def sine(
    family: str,
    mask: Bool[Tensor, "batch height width"],
    *,
    num_pos_feats: int = 128,
    temperature: float = 10000.0,
    offset: float = 0.0,
    normalize: bool = True,
    dtype: torch.dtype,
) -> Float[Tensor, "batch channel height width"]:
    """The family's sine embedding of a map.

    Raises:
        NotImplementedError: the family has no such setting.
    """
    entry = FAMILIES[family]
    valid = _valid(mask)
    if offset != float(entry.offset):
        raise NotImplementedError(f"the offset of {family} is always {entry.offset}")
    kind = getattr(_source(family), f"{entry.prefix}SinePositionEmbedding")
    if entry.sine == "shaped":
        shape = (len(mask), 2 * num_pos_feats, *mask.shape[1:])
        return kind(num_pos_feats, temperature, normalize)(shape, mask.device, dtype, valid)
    if entry.sine == "masked":
        return kind(num_pos_feats, temperature, normalize)(mask, valid).to(dtype)
    if not normalize:
        raise NotImplementedError(f"{family} always normalises")
    return kind(_configuration(num_pos_feats, temperature))(mask, valid).to(dtype)


def box(
    family: str,
    boxes: Float[Tensor, "*query coordinate"],
    *,
    num_pos_feats: int = 128,
    temperature: float = 10000.0,
) -> Float[Tensor, "*query channel"]:
    """The family's sine embedding of boxes."""
    return _source(family).encode_sinusoidal_position_embedding(boxes, num_pos_feats, temperature)


def learned(family: str, config: LearnedPositionEmbeddingConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
    """The family's learned embedding with these tables; None means as the family's model initialises it."""
    import torch
    from torch import nn

    source, prefix, group = _source(family), FAMILIES[family].learned, FAMILIES[family].sine

    class Adapted(nn.Module):
        """The learned embedding with the signature of the spec's."""

        def __init__(self) -> None:
            super().__init__()
            kind = getattr(source, f"{prefix}LearnedPositionEmbedding")
            feats = config.num_pos_feats
            self.embedding = kind(_configuration(feats, 20.0) if group == "configured" else feats)
            self.embedding.row_embeddings = nn.Embedding(config.num_rows, feats)
            self.embedding.column_embeddings = nn.Embedding(config.num_columns, feats)

        def spec_parameters(self) -> dict[str, Tensor]:
            return {
                "row_embed.weight": self.embedding.row_embeddings.weight,
                "col_embed.weight": self.embedding.column_embeddings.weight,
            }

        def forward(self, mask: Bool[Tensor, "batch height width"]) -> Float[Tensor, "batch channel height width"]:
            valid = _valid(mask)
            if group != "shaped":
                return self.embedding(valid, valid)
            shape = (len(mask), 2 * config.num_pos_feats, *mask.shape[1:])
            return self.embedding(shape, mask.device, self.embedding.row_embeddings.weight.dtype, valid)

    module = Adapted()
    if state_dict is None:
        model = getattr(source, f"{prefix}PreTrainedModel")
        module.embedding.apply(model(model.config_class())._init_weights)
        return module
    module.to(next(iter(state_dict.values())))
    with torch.no_grad():
        for name, parameter in module.spec_parameters().items():
            parameter.copy_(state_dict[name])
    return module


def _valid(mask: Tensor) -> Tensor:
    import torch

    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool (True is padding), got {mask.dtype}")
    return ~mask


def _configuration(num_pos_feats: int, temperature: float) -> SimpleNamespace:
    """The fields that the classes of the group configured read."""
    return SimpleNamespace(
        d_model=2 * num_pos_feats,
        positional_embedding_temperature=temperature,
        hidden_size=2 * num_pos_feats,
        temperature_height=temperature,
        temperature_width=temperature,
        sine_position_embedding_scale=None,
    )


def _source(family: str) -> Any:
    try:
        return importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    except ModuleNotFoundError as error:
        raise TargetError(f"this version of transformers has no {family}: {error}") from error
