"""Claims 12 and 22 of spec chapter 10: what sampling points and looking forward twice cost, counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from detr_reference.attention.config import MultiheadAttentionConfig
from detr_reference.attention.multihead_attention import MultiheadAttention
from helpers.tiny.claims_models import (
    EMBED,
    HEADS,
    LAYERS,
    LEVELS,
    LookForward,
    RefiningDecoder,
    decoder_inputs,
    deformable_attention,
    memory,
)

BATCH = 2


def multiplications(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in work; a multiply-add counts two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


# Claim 12


class RowsRead(TorchDispatchMode):
    """Counts the rows that embedding_bag gathers, which no counter of matrix products sees."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(
        self, func: Any, types: tuple[type, ...], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func._schema.name.startswith("aten::_embedding_bag"):
            self.rows += args[1].numel()
        return func(*args, **(kwargs or {}))


def deformable_cost(queries: int, points: int, shapes: list[tuple[int, int]]) -> tuple[int, int]:
    """(rows gathered, operations of matrix products) of one deformable attention."""
    module, maps = deformable_attention(points=points), memory(shapes)
    query = torch.randn(BATCH, queries, EMBED, dtype=torch.float64)
    where = torch.rand(BATCH, queries, LEVELS, 2, dtype=torch.float64)
    with torch.no_grad(), RowsRead() as read:
        operations = multiplications(lambda: module(query, reference_points=where, **maps._asdict()))
    return read.rows, operations


def dense_cost(queries: int, shapes: list[tuple[int, int]]) -> int:
    """Operations of the matrix products of one ordinary attention on the same maps."""
    module = MultiheadAttention(MultiheadAttentionConfig(EMBED, HEADS)).double().eval()
    query, maps = torch.randn(BATCH, queries, EMBED, dtype=torch.float64), memory(shapes).value
    with torch.no_grad():
        return multiplications(lambda: module(query, maps))


SMALL, LARGE = [(4, 6), (2, 11)], [(8, 6), (4, 11)]  # 46 and 92 cells


def test_claim_12_a_query_reads_its_points_however_large_the_maps() -> None:
    """Four corners of each of Q * M * L * P samples, and projections of queries and cells: no product of Q and S."""
    for queries in (5, 10):
        for points in (2, 4, 8):
            for shapes in (SMALL, LARGE):
                samples = queries * HEADS * LEVELS * points
                cells = sum(height * width for height, width in shapes)
                rows, operations = deformable_cost(queries, points, shapes)
                assert rows == BATCH * samples * 4
                offsets_and_weights = samples * 3 * EMBED
                assert operations == 2 * BATCH * (cells * EMBED**2 + queries * EMBED**2 + offsets_and_weights)


def product_of_queries_and_cells(cost: Callable[[int, list[tuple[int, int]]], int]) -> int:
    """What doubling both 5 queries and 46 cells costs beyond doubling either: the part of the cost that is Q * S."""
    return cost(10, LARGE) - cost(10, SMALL) - cost(5, LARGE) + cost(5, SMALL)


def test_claim_12_ordinary_attention_pays_for_every_pair() -> None:
    """Scores and averages are 4 * Q * S * C operations; deformable attention has no such part."""
    assert dense_cost(5, SMALL) == BATCH * 4 * ((5 * 46) * EMBED + (5 + 46) * EMBED**2)
    assert product_of_queries_and_cells(dense_cost) == BATCH * 4 * (5 * 46) * EMBED
    for part in (0, 1):  # rows, operations
        assert product_of_queries_and_cells(lambda queries, shapes, i=part: deformable_cost(queries, 4, shapes)[i]) == 0


# Claim 22


class Heads:
    """Counts how often the box heads are called, and how often a gradient comes back through such a call."""

    def __init__(self, decoder: RefiningDecoder) -> None:
        self.forward = self.backward = 0
        for head in decoder.box_heads:
            head.register_forward_hook(self._called)

    def _called(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.forward += 1
        output.register_hook(self._gradient_came)

    def _gradient_came(self, _gradient: Tensor) -> None:
        self.backward += 1


def training_step(look_forward: LookForward) -> tuple[Heads, int, int]:
    """Head calls, and the operations of the forward and of the backward pass, all layers having a loss."""
    decoder = RefiningDecoder(look_forward).double()
    heads, inputs = Heads(decoder), decoder_inputs()
    losses: list[Tensor] = []
    forward = multiplications(lambda: losses.extend(each.sum() for each in decoder(*inputs).predictions))
    backward = multiplications(lambda: torch.stack(losses).sum().backward())
    return heads, forward, backward


def test_claim_22_no_extra_forward() -> None:
    """Refinement and prediction call a head once each at every layer, either way."""
    (once, once_forward, _), (twice, twice_forward, _) = training_step("once"), training_step("twice")
    assert once.forward == twice.forward == 2 * LAYERS
    assert once_forward == twice_forward


def test_claim_22_one_more_head_on_each_path() -> None:
    """The gradient of prediction i also goes back through the refinement of layer i - 1, and nowhere else."""
    (once, _, once_backward), (twice, _, twice_backward) = training_step("once"), training_step("twice")
    assert (once.backward, twice.backward) == (LAYERS, LAYERS + LAYERS - 1)
    rows = BATCH * 5
    through_a_head = 4 * rows * (EMBED * EMBED + EMBED * EMBED + EMBED * 4)  # to inputs and to weights
    assert twice_backward - once_backward == (LAYERS - 1) * through_a_head


def backward_nodes(tensor: Tensor) -> int:
    seen, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(following for following, _ in node.next_functions)
    return len(seen)


def test_claim_22_the_extra_path_does_not_grow_with_depth() -> None:
    """Backward nodes that looking forward twice adds to a prediction: none to the first, as many to each other one.

    Detaching nothing adds more with every layer.
    """
    inputs, nodes = decoder_inputs(), {}
    for kind in ("once", "twice", "nothing detached"):
        predictions = RefiningDecoder(kind).double()(*inputs).predictions
        nodes[kind] = [backward_nodes(prediction) for prediction in predictions]
    added = [twice - once for once, twice in zip(nodes["once"], nodes["twice"], strict=True)]
    assert added[0] == 0 < added[1] == added[2] == added[3]
    whole = [every - once for once, every in zip(nodes["once"], nodes["nothing detached"], strict=True)]
    assert added[1] < whole[1] < whole[2] < whole[3]
