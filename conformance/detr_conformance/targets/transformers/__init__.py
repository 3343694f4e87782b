"""Hugging Face transformers: one target for each model family. Read in transformers 5.23.

What a family provides, and what its adapters add, is said for each kind of block in a file of its own:
`deformable_attention_families`, `attention_families`, `transformer_families`, `positions`, `overlap`, `denoising`,
`losses`, `queries`, `vision_transformer` and `detectors`. All known deviations stand in deviations/transformers.toml.
Only the CPU is claimed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from detr_conformance.target import DTYPES, Target, TargetError
from detr_conformance.targets.transformers import (
    attention,
    deformable_attention,
    denoising,
    detectors,
    losses,
    overlap,
    positions,
    queries,
    transformer,
    vision_transformer,
)

if importlib.util.find_spec("transformers") is None:
    raise TargetError('transformers is not installed; pip install "detr-spec[transformers]"')

KINDS = (
    deformable_attention,
    attention,
    transformer,
    losses,
    overlap,
    positions,
    denoising,
    queries,
    vision_transformer,
    detectors,
)


def _target(family: str) -> Target:
    provides: dict[str, Callable[..., Any]] = {}
    variants: dict[str, str] = {}
    for kind in KINDS:
        if family in kind.FAMILIES:
            provides |= kind.provides(family)
            variants |= kind.variants(family)
    return Target(
        name=f"transformers-{family}",
        provides=provides,
        devices=("cpu",),
        dtypes=DTYPES,
        features=("backward", "deterministic", "autocast"),
        variants=variants,
        stages=detectors.stages(family) if family in detectors.FAMILIES else None,
        deviations=Path(str(files("detr_conformance") / "deviations" / "transformers.toml")),
        version=importlib.metadata.version("transformers"),
    )


conditional_detr = _target("conditional_detr")
d_fine = _target("d_fine")
dab_detr = _target("dab_detr")
deformable_detr = _target("deformable_detr")
deimv2 = _target("deimv2")
deit = _target("deit")
detr = _target("detr")
dinov2 = _target("dinov2")
grounding_dino = _target("grounding_dino")
ijepa = _target("ijepa")
lw_detr = _target("lw_detr")
mask2former = _target("mask2former")
maskformer = _target("maskformer")
mm_grounding_dino = _target("mm_grounding_dino")
omdet_turbo = _target("omdet_turbo")
oneformer = _target("oneformer")
pp_doclayout_v2 = _target("pp_doclayout_v2")
pp_doclayout_v3 = _target("pp_doclayout_v3")
pp_doclayout_v4 = _target("pp_doclayout_v4")
rf_detr = _target("rf_detr")
rt_detr = _target("rt_detr")
rt_detr_v2 = _target("rt_detr_v2")
table_transformer = _target("table_transformer")
vit = _target("vit")
vit_mae = _target("vit_mae")
vit_msn = _target("vit_msn")
yolos = _target("yolos")
