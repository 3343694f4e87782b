"""What a family of transformers provides of multi-head attention; `attention_families` has the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from detr_conformance.targets.transformers.attention_families import FAMILIES

if TYPE_CHECKING:
    from torch import Tensor, nn

    from detr_reference.attention.config import MultiheadAttentionConfig

__all__ = ["FAMILIES", "provides", "variants"]


def provides(family: str) -> dict[str, Callable[..., nn.Module]]:
    """What a family provides of chapter 4, for `Target.provides`."""

    def factory(config: MultiheadAttentionConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        from detr_conformance.targets.transformers.attention_adapters import build

        return build(family, config, state_dict)

    return {"multihead_attention": factory}


def variants(family: str) -> dict[str, str]:
    """None here."""
    return {}
