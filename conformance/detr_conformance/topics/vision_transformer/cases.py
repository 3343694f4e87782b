"""Cases of `vit`: every parameter is random, 1-D ones and tokens too; height, width, channels and lengths differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.block_case import block_case, parameters_of, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.few_shapes.drawing import ANY_LAYOUT, SEEDS, composite
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject


@dataclass(frozen=True)
class VitStructure:
    """The sizes of a model and of one call; the image is `grid` patches, channels are a head's."""

    batch: int = 2
    grid: tuple[int, int] = (2, 3)
    patch: int = 2
    in_channels: int = 3
    heads: int = 2
    channels: int = 4
    depth: int = 2
    mlp_ratio: float = 1.5
    qkv_bias: bool = True
    eps: float = 1e-6
    layer_scale: bool = False
    pool: str = "none"

    @property
    def embed(self) -> int:
        return self.heads * self.channels

    @property
    def image_size(self) -> tuple[int, int]:
        return self.grid[0] * self.patch, self.grid[1] * self.patch

    def settings(self) -> dict[str, Any]:
        return {
            "image_size": self.image_size,
            "patch_size": self.patch,
            "in_channels": self.in_channels,
            "embed_dim": self.embed,
            "depth": self.depth,
            "num_heads": self.heads,
            "mlp_ratio": self.mlp_ratio,
            "qkv_bias": self.qkv_bias,
            "layer_norm_eps": self.eps,
            "layer_scale": self.layer_scale,
            "pool": self.pool,
        }


def vit_case(subject: Subject, s: VitStructure, *seed: Any, note: str = "") -> Case:
    """A random image in a random model."""
    fill = Filler(subject.dtype, subject.settings.seed, "vit", note, s, *seed)
    image = fill.normal(s.batch, s.in_channels, *s.image_size)
    return block_case(
        subject, {"image": image}, _parameters(fill, s), s.settings(), note or "random vision transformer"
    )


def without_blocks(case: Case) -> Case:
    """The blocks add nothing: what the final norm sees are patches, class token and positions."""
    ends = (".attn.proj.weight", ".attn.proj.bias", ".mlp.fc2.weight", ".mlp.fc2.bias")
    silenced = {name: torch.zeros_like(tensor) for name, tensor in parameters_of(case).items() if name.endswith(ends)}
    return with_parameters(case, **{name.replace(".", "__"): tensor for name, tensor in silenced.items()})


def with_small_tokens(case: Case, scale: float) -> Case:
    """Class token, positions and patches are all smaller by a factor."""
    names = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
    parameters = parameters_of(case)
    return with_parameters(case, **{name.replace(".", "__"): scale * parameters[name] for name in names})


def representative_vit(subject: Subject) -> list[Case]:
    structures = (
        VitStructure(layer_scale=True),
        VitStructure(batch=3, grid=(3, 2), in_channels=1, heads=3, depth=1, qkv_bias=False, pool="mean"),
        VitStructure(grid=(1, 4), patch=3, heads=3, channels=2, depth=1, pool="cls"),
    )
    return [vit_case(subject, s, note="representative") for s in structures]


def drawn_vits(subject: Subject) -> st.SearchStrategy[Case]:
    """Models of every structure, images in every layout."""

    @composite
    def draw_case(draw: st.DrawFn) -> Case:
        s = VitStructure(
            batch=draw(st.integers(1, 3)),
            grid=(draw(st.integers(1, 3)), draw(st.integers(1, 4))),
            patch=draw(st.integers(1, 3)),
            in_channels=draw(st.integers(1, 3)),
            heads=draw(st.integers(1, 3)),
            channels=draw(st.integers(3, 6)),
            depth=draw(st.integers(1, 2)),
            mlp_ratio=draw(st.sampled_from((1.0, 1.7, 4.0))),
            qkv_bias=draw(st.booleans()),
            layer_scale=draw(st.booleans()),
            pool=draw(st.sampled_from(("cls", "mean", "none"))),
        )
        case = vit_case(subject, s, draw(SEEDS), note="drawn")
        return case.laid_out(draw(ANY_LAYOUT))

    return draw_case()


def _parameters(fill: Filler, s: VitStructure) -> dict[str, Tensor]:
    embed, hidden = s.embed, int(s.embed * s.mlp_ratio)
    pixels = s.in_channels * s.patch**2
    parameters = {
        "cls_token": fill.normal(1, 1, embed),
        "pos_embed": 0.7 * fill.normal(1, 1 + s.grid[0] * s.grid[1], embed),
        "patch_embed.proj.weight": pixels**-0.5 * fill.normal(embed, s.in_channels, s.patch, s.patch),
        "patch_embed.proj.bias": 0.5 * fill.normal(embed),
        **_norm(fill, "norm", embed),
    }
    for index in range(s.depth):
        block = f"blocks.{index}"
        parameters |= _norm(fill, f"{block}.norm1", embed) | _norm(fill, f"{block}.norm2", embed)
        for name, out, into in (("attn.qkv", 3 * embed, embed), ("attn.proj", embed, embed)):
            parameters |= _linear(fill, f"{block}.{name}", out, into)
        for name, out, into in (("mlp.fc1", hidden, embed), ("mlp.fc2", embed, hidden)):
            parameters |= _linear(fill, f"{block}.{name}", out, into)
        if not s.qkv_bias:
            del parameters[f"{block}.attn.qkv.bias"]
        if s.layer_scale:
            parameters |= {f"{block}.ls{which}.gamma": fill.uniform(-1.5, 1.5, embed) for which in (1, 2)}
    return parameters


def _norm(fill: Filler, name: str, embed: int) -> dict[str, Tensor]:
    return {f"{name}.weight": 1 + 0.4 * fill.normal(embed), f"{name}.bias": 0.5 * fill.normal(embed)}


def _linear(fill: Filler, name: str, out: int, into: int) -> dict[str, Tensor]:
    """Wider than at initialisation, so that logits differ and GELU bends."""
    return {f"{name}.weight": (2 / into) ** 0.5 * fill.normal(out, into), f"{name}.bias": 0.5 * fill.normal(out)}
