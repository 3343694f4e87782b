"""The check that the field makes, for comparison: square maps, uniform weights, ordinary locations, a loose tolerance.

`python -m detr_conformance.running.naive_check` counts the mutants that survive it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from detr_conformance.harness.block import differentiable
from detr_conformance.harness.block_case import call_with
from detr_conformance.harness.packing import packed, shapes_of
from detr_conformance.operations import OPERATIONS, resolve
from detr_reference.deformable_attention.config import MSDeformAttnConfig
from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.deformable_attention.module import build

TOLERANCE = 1e-2
LEVELS = ((16, 16), (8, 8), (4, 4), (2, 2))
BATCH, QUERIES, HEADS, CHANNELS, POINTS = 2, 16, 8, 16, 4


def naive_check(operation: str, implementation: Callable[..., Any]) -> bool:
    """Whether output and gradients are close to the reference's on one ordinary float32 call.

    Args:
        operation: its id; modules are checked with initial parameters.
        implementation: as in `Target.provides`.

    Returns:
        False also if the call or its backward raises.
    """
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if operation in CHECKS:
                return CHECKS[operation](implementation)
            return _check_block(operation, implementation)
    except Exception:
        return False
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)


def _levels() -> tuple[Tensor, Tensor]:
    shapes = torch.tensor(LEVELS)
    sizes = shapes.prod(-1)
    return shapes, sizes.cumsum(0) - sizes


def _check_function(implementation: Callable[..., Tensor]) -> bool:
    shapes, starts = _levels()
    value = torch.rand(BATCH, int(shapes.prod(-1).sum()), HEADS, CHANNELS)
    locations = torch.rand(BATCH, QUERIES, HEADS, len(LEVELS), POINTS, 2)
    weights = torch.full(locations.shape[:-1], 1 / (len(LEVELS) * POINTS))
    grad_output = torch.rand(BATCH, QUERIES, HEADS * CHANNELS)
    results = []
    for function in (implementation, ms_deform_attn):
        leaves = [tensor.clone().requires_grad_() for tensor in (value, locations, weights)]
        output = function(leaves[0], shapes, starts, leaves[1], leaves[2])
        results.append((output, *torch.autograd.grad(output, leaves, grad_output.clone())))
    return _all_close(*results)


def _check_module(factory: Callable[..., Any]) -> bool:
    shapes, starts = _levels()
    config = MSDeformAttnConfig(HEADS * CHANNELS, HEADS, len(LEVELS), POINTS, dropout=0.0)
    state = build(config).state_dict()
    query, query_pos = torch.rand(2, BATCH, int(shapes.prod(-1).sum()), config.embed_dim)
    centres = [
        (torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"), -1) + 0.5).flatten(0, 1) / w
        for h, w in LEVELS
    ]
    reference = torch.cat(centres)[None, :, None].expand(BATCH, -1, len(LEVELS), -1)
    results = []
    for build_module in (factory, build):
        module = build_module(config, {name: tensor.clone() for name, tensor in state.items()}).eval()
        leaf = query.clone().requires_grad_()
        output = module(
            leaf, query_pos=query_pos, reference_points=reference, spatial_shapes=shapes, level_start_index=starts
        )
        results.append((output, *torch.autograd.grad(output.sum(), leaf)))
    return _all_close(*results)


def _check_block(operation: str, implementation: Callable[..., Any]) -> bool:
    settings, inputs = ORDINARY[operation]()
    entry = OPERATIONS[operation]
    reference = resolve(entry.reference)
    state = {}
    if entry.config is not None:
        config = resolve(entry.config)(**settings)
        state = reference(config).state_dict()
    results = []
    shapes = None
    for made in (reference, implementation):
        leaves = {n: t.clone().requires_grad_() for n, t in inputs.items() if differentiable(operation, n, t)}
        given = {n: t.clone() for n, t in inputs.items()} | leaves
        if entry.config is not None:
            called = made(config, {name: tensor.clone() for name, tensor in state.items()}).eval()
        else:
            called = partial(made, **settings)
        output = call_with(operation, called, given)
        if isinstance(output, Mapping):
            shapes = shapes or shapes_of(output)
            output = packed(output, shapes)
        grad_output = torch.linspace(-1, 1, output.numel()).view_as(output)  # the sum of a layer norm is constant
        found = torch.autograd.grad(output, list(leaves.values()), grad_output, allow_unused=True) if leaves else ()
        gradients = [t.new_zeros(()) if g is None else g for t, g in zip(leaves.values(), found, strict=True)]
        results.append((output, *gradients))
    expected, got = results
    return _all_close(got, expected)


def _tokens(length: int = 16, channels: int = 32) -> Tensor:
    return torch.randn(BATCH, length, channels)


def _boxes_near_each_other(count: int) -> Tensor:
    """As predictions lie near their targets."""
    return torch.cat((0.1 + 0.3 * torch.rand(count, 2), 0.6 + 0.3 * torch.rand(count, 2)), -1)


def _found_boxes(layers: int | None = None) -> dict[str, Tensor]:
    """Three boxes in each image, found by the first three of ten queries in every layer."""
    labels, targets = torch.randint(8, (BATCH * 3,)), 0.2 + 0.3 * torch.rand(BATCH * 3, 4)
    logits, boxes = torch.randn(BATCH, 10, 8), 0.6 + 0.3 * torch.rand(BATCH, 10, 4)
    boxes[:, :3] = (targets + 0.02 * torch.randn_like(targets)).view(BATCH, 3, 4)
    logits[:, :3].scatter_add_(2, labels.view(BATCH, 3, 1), torch.full((BATCH, 3, 1), 4.0))
    if layers is not None:
        logits, boxes = (torch.stack([tensor] * layers) for tensor in (logits, boxes))
    return {
        "pred_logits": logits,
        "pred_boxes": boxes,
        "target_labels": labels,
        "target_boxes": targets,
        "target_counts": torch.tensor([3] * BATCH),
    }


def _no_padding() -> Tensor:
    return torch.zeros(BATCH, 8, 8, dtype=torch.bool)


SMALL = {
    "num_classes": 4,
    "num_queries": 6,
    "embed_dim": 16,
    "num_heads": 4,
    "feedforward_dim": 32,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "backbone_blocks": (1, 1, 1, 1),
    "backbone_width": 8,
}


def _images() -> dict[str, Tensor]:
    return {"images": torch.rand(BATCH, 3, 64, 64), "mask": torch.zeros(BATCH, 64, 64, dtype=torch.bool)}


# Configuration or settings, and inputs, of the call that people try first.
ORDINARY: dict[str, Callable[[], tuple[dict[str, Any], dict[str, Tensor]]]] = {
    "multihead_attention": lambda: ({"embed_dim": 32, "num_heads": 4}, {"query": _tokens(), "query_pos": _tokens()}),
    "self_attention": lambda: ({"embed_dim": 32, "num_heads": 4}, {"x": _tokens()}),
    "cross_attention": lambda: (
        {"embed_dim": 32, "num_heads": 4},
        {"query": _tokens(), "key": _tokens(), "value": _tokens()},
    ),
    "feed_forward": lambda: ({"embed_dim": 32, "feedforward_dim": 64}, {"x": _tokens()}),
    "mlp": lambda: ({"input_dim": 32, "hidden_dim": 32, "output_dim": 4, "num_layers": 3}, {"x": _tokens()}),
    "encoder_layer": lambda: (
        {"embed_dim": 32, "num_heads": 4, "feedforward_dim": 64},
        {"query": _tokens(), "query_pos": _tokens()},
    ),
    "decoder_layer": lambda: (
        {
            "embed_dim": 32,
            "num_heads": 4,
            "feedforward_dim": 64,
            "operation_order": ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm"),
        },
        {"query": _tokens(10), "key": _tokens(), "query_pos": _tokens(10), "key_pos": _tokens()},
    ),
    "sine_position_embedding": lambda: ({"num_pos_feats": 16}, {"mask": _no_padding()}),
    "box_position_embedding": lambda: ({"num_pos_feats": 16}, {"boxes": torch.rand(BATCH, 10, 4)}),
    "learned_position_embedding": lambda: ({"num_pos_feats": 16}, {"mask": _no_padding()}),
    "level_position_embedding": lambda: (
        {},
        {
            "position_embedding": _tokens(20, 32),
            "spatial_shapes": torch.tensor([[4, 4], [2, 2]]),
            "level_embed": torch.randn(2, 32),
        },
    ),
    "generalized_box_iou": lambda: (
        {},
        {"boxes1": _boxes_near_each_other(8), "boxes2": _boxes_near_each_other(8)},
    ),
    "sigmoid_focal_loss": lambda: (
        {},
        {
            "logits": _tokens(16, 8),
            "targets": (torch.rand(BATCH, 16, 8) < 0.2).float(),
            "num_boxes": torch.tensor(12.0),
        },
    ),
    "postprocess": lambda: (
        {"num_select": 10},
        {
            "pred_logits": _tokens(16, 8),
            "pred_boxes": 0.3 + 0.4 * torch.rand(BATCH, 16, 4),
            "sizes": torch.tensor([[640, 640]] * BATCH),
        },
    ),
    "detection_losses": lambda: ({}, _found_boxes(layers=2)),
    "valid_ratios": lambda: ({}, {"mask_l": _no_padding()}),
    "encoder_reference_points": lambda: (
        {},
        {"spatial_shapes": torch.tensor([[8, 8], [4, 4]]), "valid_ratios": torch.ones(BATCH, 2, 2)},
    ),
    "encoder_proposals": lambda: (
        {},
        {
            "memory": _tokens(80),
            "memory_key_padding_mask": torch.zeros(BATCH, 80, dtype=torch.bool),
            "spatial_shapes": torch.tensor([[8, 8], [4, 4]]),
        },
    ),
    "select_queries": lambda: (
        {"num_queries": 10},
        {"class_logits": _tokens(80, 8), "proposals": _tokens(80, 4), "memory": _tokens(80)},
    ),
    "refine_boxes": lambda: ({}, {"delta": _tokens(10, 4), "reference": 0.2 + 0.6 * torch.rand(BATCH, 10, 4)}),
    "dino_decoder": lambda: (
        {"embed_dim": 32, "num_heads": 4, "feedforward_dim": 64, "num_layers": 2, "num_levels": 2, "num_classes": 10},
        {
            "query": _tokens(10),
            "memory": _tokens(20),
            "reference_points": torch.rand(BATCH, 10, 4),
            "spatial_shapes": torch.tensor([[4, 4], [2, 2]]),
            "level_start_index": torch.tensor([0, 16]),
            "valid_ratios": torch.ones(BATCH, 2, 2),
        },
    ),
    "vit": lambda: (
        {"image_size": (32, 32), "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4},
        {"image": torch.rand(BATCH, 3, 32, 32)},
    ),
    "detr": lambda: ({**SMALL, "dropout": 0.0}, _images()),
    "deformable_detr": lambda: ({**SMALL, "dropout": 0.0, "neck_groups": 4}, _images()),
    "dino": lambda: ({**SMALL, "neck_groups": 4}, _images()),
}


def _all_close(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> bool:
    """Outputs by rtol and atol; gradients loosely, against their largest element."""
    if not torch.allclose(got[0], expected[0], rtol=TOLERANCE, atol=TOLERANCE):
        return False
    return all(
        bool((one - other).abs().max() <= TOLERANCE * other.abs().max())
        for one, other in zip(got[1:], expected[1:], strict=True)
    )


def _check_denoising(implementation: Callable[..., Any]) -> bool:
    """What can be asked of random queries without statistics: shapes, the mask, and positives near their boxes."""
    boxes = torch.cat((0.4 + 0.2 * torch.rand(6, 2), 0.1 + 0.2 * torch.rand(6, 2)), -1)
    given = (torch.arange(6), boxes, torch.tensor([3, 3]), torch.randn(10, 16))
    expected = resolve(OPERATIONS["contrastive_denoising"].reference)(*given, num_queries=10)
    got = implementation(*(tensor.clone() for tensor in given), num_queries=10)
    if any(got[name].shape != tensor.shape for name, tensor in expected.items()):
        return False
    positives = got["references"].sigmoid().unflatten(1, (-1, 2, 3))[:, :, 0] - boxes.view(2, 1, 3, 4)
    near = positives.abs() <= boxes[:, 2:].repeat(1, 2).view(2, 1, 3, 4)
    return bool(near.all()) and torch.equal(got["attn_mask"], expected["attn_mask"])


def _check_matching(implementation: Callable[..., Any]) -> bool:
    """Each query that found a box gets it."""
    given = _found_boxes().values()
    expected = resolve(OPERATIONS["hungarian_matching"].reference)(*given)
    got = implementation(*(tensor.clone() for tensor in given))
    return all(torch.equal(got[name].long(), tensor) for name, tensor in expected.items())


CHECKS: dict[str, Callable[[Callable[..., Any]], bool]] = {
    "ms_deform_attn": _check_function,
    "ms_deform_attn_module": _check_module,
    "contrastive_denoising": _check_denoising,
    "hungarian_matching": _check_matching,
}


def main() -> None:
    """Prints how many mutants of each operation survive, and the names of those that do not."""
    from detr_conformance.running.mutants import MUTANTS

    for operation in OPERATIONS:
        mutants = [mutant for mutant in MUTANTS.values() if mutant.operation == operation]
        caught = [mutant.name for mutant in mutants if not naive_check(operation, mutant.build())]
        print(f"{operation}: {len(mutants) - len(caught)} of {len(mutants)} mutants survive the naive check")
        print(f"  caught: {', '.join(caught)}")


if __name__ == "__main__":
    main()
