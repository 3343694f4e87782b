"""Sizes of the calls that an operation of a target really received, counted from the calls themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

Sizes = tuple[tuple[str, int], ...]


class Reached:
    """How often calls of each combination of sizes came, with and without a gradient asked of an argument."""

    def __init__(self) -> None:
        self._calls: Counter[tuple[Sizes, bool]] = Counter()

    def count(self, operation: str, arguments: Mapping[str, Any], settings: Mapping[str, str]) -> None:
        """Take one call into account; `settings` are those of a module's configuration, as text."""
        sizes = _SIZES.get(operation, _extents)(arguments, settings)
        self._calls[tuple(sizes.items()), any(tensor.requires_grad for tensor in arguments.values())] += 1

    def rows(self) -> list[dict[str, Any]]:
        """As plain data, for an event."""
        return [
            {"sizes": dict(sizes), "backward": backward, "calls": calls}
            for (sizes, backward), calls in sorted(self._calls.items())
        ]


def _of_core(arguments: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, int]:
    batch, cells, heads, channels = arguments["value"].shape
    _, queries, _, levels, points, _ = arguments["sampling_locations"].shape
    return {
        "batch": batch,
        "queries": queries,
        "heads": heads,
        "channels": channels,
        "levels": levels,
        "points": points,
        "cells": cells,
        "width": _width(arguments),
    }


def _of_module(arguments: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, int]:
    batch, queries, embed = arguments["query"].shape
    return {
        "batch": batch,
        "queries": queries,
        "heads": int(settings.get("num_heads", 0)),
        "embed_dim": embed,
        "levels": arguments["reference_points"].shape[2],
        "points": int(settings.get("num_points", 0)),
        "cells": arguments.get("value", arguments["query"]).shape[1],
        "width": _width(arguments),
        "coordinates": arguments["reference_points"].shape[3],
        "optional tensors": sum(name in arguments for name in ("identity", "query_pos", "key_padding_mask")),
    }


def _width(arguments: Mapping[str, Any]) -> int:
    shapes = arguments["spatial_shapes"].tolist()
    return max((int(width) for _, width in shapes), default=0)


def _extents(arguments: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, int]:
    """Of any other operation: the extent of each axis of each argument."""
    return {
        f"{name}[{axis}]": size for name, tensor in arguments.items() for axis, size in enumerate(tuple(tensor.shape))
    }


_SIZES = {"ms_deform_attn": _of_core, "ms_deform_attn_module": _of_module}
