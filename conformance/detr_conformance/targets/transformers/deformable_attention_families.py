"""The deformable attention of Hugging Face transformers, by model family.

Read in transformers 5.23. Fifteen families hold copies of three cores and a few modules; what stands in one row is the
same text but for the family's name in it.

| group | families | core | what is particular in the module |
|---|---|---|---|
| deformable_detr | deformable_detr, lw_detr, rf_detr, rt_detr, pp_doclayout_v2, _v3, _v4 | A | |
| | omdet_turbo | A | the same, but its model never initialises it |
| | grounding_dino, mm_grounding_dino | A | sums H * W from the tensor instead of the list |
| mask2former | mask2former | B | True is padding; made from sizes; takes the shapes as a list alone |
| | oneformer | B | the same, but takes the shapes as a tensor too |
| rt_detr_v2 | rt_detr_v2 | C | level and point are one axis |
| d_fine | d_fine, deimv2 | C | as rt_detr_v2; no value_proj, output_proj or positions |

A and B are the same statements, once as a module's forward and once as a function. C is a third text, which takes level
and point as one axis. Its method "default" is the operation of the spec; its method "discrete" reads the nearest cell,
clamped to the border, and is no target here.

The modules of rt_detr_v2, d_fine and deimv2 are adapted but not provided, since an ordinary call fails. With (x, y)
reference points they always raise: the references have an axis of levels, the offsets have none (rt_detr_v2 line 209;
d_fine line 290, which also takes S for Q). Their own decoders only ever pass boxes. With a mask d_fine and deimv2 raise
as well: it is applied after the heads are split, where it lacks an axis (d_fine line 275).

What the adapters add is said in `deformable_attention_adapters`. Only the CPU is claimed: on a GPU the same code
adds up the gradient of the value by atomic additions and reads nothing at NaN locations, so that other deviations hold
there.
"""

from __future__ import annotations

from dataclasses import dataclass

BOXES_ONLY = ("rt_detr_v2", "d_fine")


@dataclass(frozen=True)
class Family:
    """Where a model family keeps its deformable attention.

    Attributes:
        name: its folder under transformers.models.
        prefix: how its class names begin.
        group: the row of the table above, by which the adapter chooses.
    """

    name: str
    prefix: str
    group: str


FAMILIES: dict[str, Family] = {
    "deformable_detr": Family("deformable_detr", "DeformableDetr", "deformable_detr"),
    "lw_detr": Family("lw_detr", "LwDetr", "deformable_detr"),
    "rf_detr": Family("rf_detr", "RfDetr", "deformable_detr"),
    "rt_detr": Family("rt_detr", "RTDetr", "deformable_detr"),
    "pp_doclayout_v2": Family("pp_doclayout_v2", "PPDocLayoutV2", "deformable_detr"),
    "pp_doclayout_v3": Family("pp_doclayout_v3", "PPDocLayoutV3", "deformable_detr"),
    "pp_doclayout_v4": Family("pp_doclayout_v4", "PPDocLayoutV4", "deformable_detr"),
    "omdet_turbo": Family("omdet_turbo", "OmDetTurbo", "deformable_detr"),
    "grounding_dino": Family("grounding_dino", "GroundingDino", "deformable_detr"),
    "mm_grounding_dino": Family("mm_grounding_dino", "MMGroundingDino", "deformable_detr"),
    "mask2former": Family("mask2former", "Mask2Former", "mask2former"),
    "oneformer": Family("oneformer", "OneFormer", "mask2former"),
    "rt_detr_v2": Family("rt_detr_v2", "RTDetrV2", "rt_detr_v2"),
    "d_fine": Family("d_fine", "DFine", "d_fine"),
    "deimv2": Family("deimv2", "Deimv2", "d_fine"),
}
