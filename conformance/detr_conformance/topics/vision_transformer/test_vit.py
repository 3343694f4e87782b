"""The Vision Transformer. Clauses: spec chapter 9."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from detr_conformance.harness.block import agrees, expectations, forward, gradients_agree, make, raises
from detr_conformance.harness.block_case import parameters_of, with_parameters
from detr_conformance.harness.case import LAYOUTS, Case
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.vision_transformer.cases import (
    VitStructure,
    drawn_vits,
    vit_case,
    with_small_tokens,
    without_blocks,
)

OPERATION = "vit"

ONE_BLOCK = VitStructure(depth=1)


# -- from pixels to tokens ------------------------------------------------------------------------------------


def embeddings(subject: Subject) -> Iterator[Case]:
    """Patches of two sizes, a wide grid and a high one, in models whose blocks add nothing."""
    for grid, patch, channels in (((2, 3), 2, 3), ((4, 2), 3, 1)):
        s = replace(ONE_BLOCK, grid=grid, patch=patch, in_channels=channels)
        yield without_blocks(vit_case(subject, s, note="embeddings alone"))


@covers("VIT-1", cases=embeddings)
def test_patch_embedding(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("VIT-2", cases=embeddings)
def test_patches_row_by_row(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("VIT-3", cases=embeddings)
def test_the_class_token_comes_first(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("VIT-4", cases=embeddings)
def test_positions_after_concatenation(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("VIT-5", cases=lambda subject: [vit_case(subject, ONE_BLOCK, note="image of another size")])
def test_the_configured_image_and_no_other(subject: Subject, case: Case) -> None:
    agrees(subject, case)
    image = case["image"]
    _, channels, height, width = image.shape
    size = f"{height} x {width}"
    raises(subject, case.having(image=image.transpose(2, 3)), f"the image is {width} x {height} and not {size}")
    raises(subject, case.having(image=torch.cat((image, image), 3)), f"the image is twice as wide as {size}")
    raises(subject, case.having(image=image[..., : width // 2, :]), f"the image is lower than {size}")
    longer = image.reshape(2, channels, 1, -1).expand(-1, -1, 2, -1)[..., : height * width // 2]
    raises(subject, case.having(image=longer), f"the image has as many pixels as one of {size}, in two rows")
    raises(
        subject, case.having(image=torch.cat((image, image[..., :1]), 3)), f"the image is one pixel wider than {size}"
    )
    raises(subject, case.having(image=image[:, :-1]), f"the image has {channels - 1} channels and not {channels}")


@covers("VIT-6", cases=lambda subject: [vit_case(subject, ONE_BLOCK, note="pixels of any size")])
def test_pixels_as_they_are(subject: Subject, case: Case) -> None:
    agrees(subject, case.having(image=case["image"] * 8))
    agrees(subject, case.having(image=case["image"].round() * 128))


# -- the block ------------------------------------------------------------------------------------------------


def one_block(subject: Subject) -> Iterator[Case]:
    """A stream three times as large as what the block adds."""
    yield with_small_tokens(vit_case(subject, ONE_BLOCK, note="one block"), 3.0)
    yield vit_case(subject, replace(ONE_BLOCK, heads=3, channels=2), note="one block")


@covers("VIT-7", cases=one_block)
def test_pre_norm(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("VIT-8", cases=one_block)
def test_attention_then_mlp(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def attending(subject: Subject) -> Iterator[Case]:
    """Blocks whose MLP adds nothing, with and without bias, heads and channels in every relation."""
    for heads, channels, qkv_bias in ((3, 2, True), (2, 5, False)):
        s = replace(ONE_BLOCK, heads=heads, channels=channels, qkv_bias=qkv_bias)
        case = vit_case(subject, s, note="attention alone")
        weight, bias = (parameters_of(case)[f"blocks.0.mlp.fc2.{part}"] for part in ("weight", "bias"))
        zeros = {"blocks__0__mlp__fc2__weight": weight * 0, "blocks__0__mlp__fc2__bias": bias * 0}
        yield with_parameters(case, **zeros)


@covers("VIT-9", cases=attending)
def test_the_blocks_attention(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("VIT-10", cases=lambda subject: [vit_case(subject, VitStructure(depth=3), note="three blocks")])
def test_every_block_in_order(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("VIT-11", cases=one_block)
def test_exact_gelu(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def of_every_width(subject: Subject) -> Iterator[Case]:
    for ratio in (1.6, 0.7):  # 9.6 and 4.2 features
        yield vit_case(subject, replace(ONE_BLOCK, channels=3, mlp_ratio=ratio), note=f"MLP ratio {ratio}")


@covers("VIT-12", cases=of_every_width)
def test_width_of_the_mlp(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("VIT-13", cases=lambda subject: [vit_case(subject, replace(ONE_BLOCK, layer_scale=True), note="layer scale")])
def test_layer_scale(subject: Subject, case: Case) -> None:
    agrees(subject, case)


# -- norms and the end ----------------------------------------------------------------------------------------


@covers("VIT-14", cases=one_block)
def test_layer_norm(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def with_every_eps(subject: Subject) -> Iterator[Case]:
    """A large eps, and tokens so small that 1e-12, 1e-6 and 1e-5 differ: before the blocks, and at the end."""
    yield vit_case(subject, replace(ONE_BLOCK, eps=0.5), note="large eps")
    tiny = vit_case(subject, replace(ONE_BLOCK, eps=1e-12), note="small tokens before a block")
    yield with_small_tokens(tiny, 2**-9)
    small = vit_case(subject, replace(ONE_BLOCK, eps=1e-6), note="small tokens at the end")
    yield without_blocks(with_small_tokens(small, 2**-9))


@covers("VIT-15", cases=with_every_eps)
def test_eps(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def pooled(subject: Subject, *pools: str) -> Iterator[Case]:
    """A class token that stands out among the patches."""
    for pool in pools:
        case = vit_case(subject, replace(ONE_BLOCK, pool=pool), note=f"pool {pool}")
        yield with_parameters(case, cls_token=3 * case["parameter:cls_token"])


@covers("VIT-16", cases=lambda subject: pooled(subject, "mean", "cls", "none"))
def test_the_final_norm_comes_before_pooling(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("VIT-17", cases=lambda subject: pooled(subject, "cls"))
def test_class_pool(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("VIT-18", cases=lambda subject: pooled(subject, "mean"))
def test_mean_pool(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("VIT-19", cases=lambda subject: pooled(subject, "none"))
def test_no_pool(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("VIT-20", cases=lambda subject: [vit_case(subject, VitStructure(batch=6, layer_scale=True), note="training")])
def test_no_dropout(subject: Subject, case: Case) -> None:
    module = make(subject, case)
    if isinstance(module, nn.Module):
        module.train()
    right = expectations(subject, case, backward=False)["output"]
    for _ in range(2):
        subject.compare("output while training", forward(subject, case, module), right.expected, right.limit)


# -- numbers --------------------------------------------------------------------------------------------------


@covers("VIT-21", cases=drawn_vits, share=0.2)
def test_accuracy(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


@covers(
    "VIT-21",
    cases=lambda subject: [
        vit_case(
            subject, VitStructure(grid=(5, 7), patch=4, heads=3, channels=16, depth=2, mlp_ratio=4.0), note="at scale"
        )
    ],
)
def test_accuracy_at_scale(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


def in_every_layout(subject: Subject) -> Iterator[Case]:
    for layout, pool in zip(LAYOUTS, ("none", "cls", "mean", "none"), strict=True):
        depth = 2 if layout == "contiguous" else 1
        s = VitStructure(depth=depth, layer_scale=layout == "sliced", qkv_bias=layout != "offset", pool=pool)
        yield vit_case(subject, s, note="gradients").laid_out(layout)


@covers("VIT-22", cases=in_every_layout, feature="backward", plain=agrees)
def test_gradient_accuracy(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, precise=True)
