"""What several configurations ask of their fields; each message names the field and its value."""

from __future__ import annotations

from typing import Any


def check_sizes(config: Any, *names: str) -> None:
    """Each size is at least 1.

    Raises:
        ValueError: one is not.
    """
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")


def check_heads(config: Any) -> None:
    """embed_dim and num_heads are at least 1, and every head gets embed_dim / num_heads channels.

    Raises:
        ValueError: they are not, or channels are left over.
    """
    check_sizes(config, "embed_dim", "num_heads")
    if config.embed_dim % config.num_heads:
        raise ValueError(
            f"num_heads must divide embed_dim, but {config.embed_dim} / {config.num_heads} leaves "
            f"{config.embed_dim % config.num_heads} channels over"
        )


def check_sine_channels(config: Any) -> None:
    """embed_dim is a multiple of 4: a sine and a cosine of each axis.

    Raises:
        ValueError: it is not.
    """
    if config.embed_dim % 4:
        raise ValueError(f"embed_dim must be a multiple of 4 (sine and cosine, x and y), got {config.embed_dim}")


def check_probabilities(config: Any, *names: str) -> None:
    """Each lies between 0 and 1.

    Raises:
        ValueError: one does not.
    """
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {getattr(config, name)}")
