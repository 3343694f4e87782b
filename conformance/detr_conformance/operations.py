"""The operations a target may provide, and the variants it may declare. Plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Operation:
    """One row of the table of operations.

    Attributes:
        kind: "function" (stateless) or "module" (a factory `(config, state_dict) -> module`).
        arguments: names of the call's arguments, in order.
        reference: where the reference's own callable lives, as "module:attribute".
        chapter: the spec chapter that describes it.
    """

    kind: str
    arguments: tuple[str, ...]
    reference: str
    chapter: str


OPERATIONS: dict[str, Operation] = {
    "ms_deform_attn": Operation(
        kind="function",
        arguments=("value", "spatial_shapes", "level_start_index", "sampling_locations", "attention_weights"),
        reference="detr_reference.deformable_attention:ms_deform_attn",
        chapter="01-deformable-attention.md",
    ),
    "ms_deform_attn_module": Operation(
        kind="module",
        arguments=("config", "state_dict"),
        reference="detr_reference.deformable_attention_module:build",
        chapter="02-deformable-attention-module.md",
    ),
}

# Named alternatives: the first value is the default.
VARIANTS: dict[str, tuple[str, ...]] = {
    "coordinates": ("float32", "half"),
    "reference_points": ("points and boxes", "boxes"),
}
