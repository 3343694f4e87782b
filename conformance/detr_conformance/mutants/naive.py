"""The check that the field makes, for comparison: square maps, uniform weights, ordinary locations, a loose tolerance.

`python -m detr_conformance.mutants.naive` counts the mutants that survive it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from detr_reference.deformable_attention import ms_deform_attn
from detr_reference.deformable_attention_module import MSDeformAttnConfig, build

TOLERANCE = 1e-2
LEVELS = ((16, 16), (8, 8), (4, 4), (2, 2))
BATCH, QUERIES, HEADS, CHANNELS, POINTS = 2, 16, 8, 16, 4


def naive_check(operation: str, implementation: Callable[..., Any]) -> bool:
    """Whether output and gradients are close to the reference's on one ordinary float32 call.

    Args:
        operation: "ms_deform_attn", or "ms_deform_attn_module", which is checked with initial parameters.
        implementation: as in `Target.provides`.

    Returns:
        False also if the call or its backward raises.
    """
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return CHECKS[operation](implementation)
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


def _all_close(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> bool:
    """Outputs by rtol and atol; gradients loosely, against their largest element."""
    if not torch.allclose(got[0], expected[0], rtol=TOLERANCE, atol=TOLERANCE):
        return False
    return all(
        bool((one - other).abs().max() <= TOLERANCE * other.abs().max())
        for one, other in zip(got[1:], expected[1:], strict=True)
    )


CHECKS: dict[str, Callable[[Callable[..., Any]], bool]] = {
    "ms_deform_attn": _check_function,
    "ms_deform_attn_module": _check_module,
}


def main() -> None:
    """Prints how many mutants of each operation survive, and the names of those that do not."""
    from detr_conformance.mutants import MUTANTS

    for operation in CHECKS:
        mutants = [mutant for mutant in MUTANTS.values() if mutant.operation == operation]
        caught = [mutant.name for mutant in mutants if not naive_check(operation, mutant.build())]
        print(f"{operation}: {len(mutants) - len(caught)} of {len(mutants)} mutants survive the naive check")
        print(f"  caught: {', '.join(caught)}")


if __name__ == "__main__":
    main()
