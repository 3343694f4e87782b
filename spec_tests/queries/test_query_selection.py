"""Selection against sorting in Python, ties, gradients and errors; what queries begin with."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detr_reference.queries.mixed_query_selection import initial_queries
from detr_reference.queries.query_selection import select_queries
from helpers.oracles.scalar_selection import ranked


@given(
    batch=st.integers(1, 3),
    cells=st.integers(1, 12),
    classes=st.integers(1, 4),
    score=st.sampled_from(("max", "first")),
    data=st.data(),
)
def test_scalar_oracle(batch: int, cells: int, classes: int, score: str, data: st.DataObject) -> None:
    """Few different logits, so that there are ties: the scores are those of a sort, the rows those of the indices."""
    numbers = st.lists(st.sampled_from((-3.0, 0.0, 1.5, 4.0)), min_size=classes, max_size=classes)
    told = data.draw(st.lists(st.lists(numbers, min_size=cells, max_size=cells), min_size=batch, max_size=batch))
    num_queries = data.draw(st.integers(1, cells))
    logits, proposals, memory = torch.tensor(told), torch.randn(batch, cells, 4), torch.randn(batch, cells, 3)
    out = select_queries(logits, proposals, memory, num_queries=num_queries, score=score)
    assert out["indices"].dtype == torch.int64
    for image in range(batch):
        own = out["indices"][image].tolist()
        assert len(set(own)) == num_queries
        value = (lambda cell: cell[0]) if score == "first" else max
        wanted = [value(told[image][cell]) for cell in ranked(told[image], score == "first")[:num_queries]]
        assert [value(told[image][cell]) for cell in own] == wanted
        for query, cell in enumerate(own):
            assert torch.equal(out["proposals"][image, query], proposals[image, cell])
            assert torch.equal(out["memory"][image, query], memory[image, cell])


def test_invalid_cells_are_selected_when_there_are_no_others() -> None:
    """More queries than valid cells: the others come last or first, as their one score has it."""
    logits = torch.tensor([[[2.0], [-1.0], [-1.0], [-3.0]]])
    proposals = torch.randn(1, 4, 4)
    proposals[0, 1:3] = torch.inf
    out = select_queries(logits, proposals, torch.randn(1, 4, 2), num_queries=4)
    assert out["indices"][0, 0] == 0
    assert out["indices"][0, 3] == 3
    assert out["proposals"][0].isinf().all(-1).tolist() == [False, True, True, False]


def test_gradients_are_scattered_back() -> None:
    logits = torch.randn(2, 5, 3, requires_grad=True)
    proposals = torch.randn(2, 5, 4, requires_grad=True)
    memory = torch.randn(2, 5, 2, requires_grad=True)
    out = select_queries(logits, proposals, memory, num_queries=3)
    incoming = torch.randn(2, 3, 4)
    (grad,) = torch.autograd.grad(out["proposals"], proposals, incoming, retain_graph=True)
    expected = torch.zeros(2, 5, 4)
    for image in range(2):
        expected[image, out["indices"][image]] = incoming[image]
    assert torch.equal(grad, expected)
    (none,) = torch.autograd.grad(out["memory"].sum(), logits, allow_unused=True)
    assert none is None


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors() -> None:
    logits, proposals, memory = torch.randn(2, 5, 3), torch.randn(2, 5, 4), torch.randn(2, 5, 2)
    with pytest.raises(ValueError, match="num_queries must lie between 1 and the 5 cells of the memory, got 6"):
        select_queries(logits, proposals, memory, num_queries=6)
    with pytest.raises(ValueError, match="num_queries must lie between 1 and the 5 cells of the memory, got 0"):
        select_queries(logits, proposals, memory, num_queries=0)
    with pytest.raises(ValueError, match="score must be one of max, first, got 'mean'"):
        select_queries(logits, proposals, memory, num_queries=2, score="mean")
    with pytest.raises(ValueError, match=r"proposals must be \(2, 5, 4\), .* got \(2, 4, 4\)"):
        select_queries(logits, proposals[:, :4], memory, num_queries=2)
    with pytest.raises(ValueError, match=r"memory must be \(2, 5, embed\), .* got \(1, 5, 2\)"):
        select_queries(logits, proposals, memory[:1], num_queries=2)
    with pytest.raises(ValueError, match=r"class_logits must be \(batch, cell, classes\), got \(5, 3\)"):
        select_queries(logits[0], proposals, memory, num_queries=2)


def test_nan_ranks_first_and_stays_in_its_image() -> None:
    logits, proposals, memory = torch.randn(2, 5, 3), torch.randn(2, 5, 4), torch.randn(2, 5, 2)
    right = select_queries(logits, proposals, memory, num_queries=2)["indices"]
    logits[1, 3, 2] = torch.nan
    indices = select_queries(logits, proposals, memory, num_queries=2)["indices"]
    assert torch.equal(indices[0], right[0])
    assert indices[1, 0] == 3


# -- what queries begin with ----------------------------------------------------------------------------------


def test_where_content_and_references_come_from() -> None:
    content, references = torch.randn(3, 2, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    selected = {name: torch.randn(2, 3, n, requires_grad=True) for name, n in (("memory", 2), ("proposals", 4))}
    expected = {
        "static": (content.expand(2, 3, 2), references.expand(2, 3, 4)),
        "pure": (selected["memory"], selected["proposals"]),
        "mixed": (content.expand(2, 3, 2), selected["proposals"]),
    }
    for selection, wanted in expected.items():
        got = initial_queries(selection, 2, learned_content=content, learned_references=references, selected=selected)
        for tensor, want in zip(got, wanted, strict=True):
            assert torch.equal(tensor, want)
            assert tensor.requires_grad == (want.grad_fn is not None)  # learned ones learn, selected ones are detached


@pytest.mark.parametrize(
    ("selection", "missing"),
    [("static", "learned_content"), ("mixed", "learned_content"), ("pure", "selected")],
)
def test_what_is_missing_is_named(selection: str, missing: str) -> None:
    with pytest.raises(ValueError, match=f"{selection} selection needs {missing}"):
        initial_queries(selection, 2)


def test_references_that_are_missing_are_named() -> None:
    content = torch.randn(3, 2)
    with pytest.raises(ValueError, match="static selection needs learned_references"):
        initial_queries("static", 2, learned_content=content)
    with pytest.raises(ValueError, match="mixed selection needs selected"):
        initial_queries("mixed", 2, learned_content=content)
    with pytest.raises(ValueError, match="selection must be one of static, pure, mixed, got 'none'"):
        initial_queries("none", 2, learned_content=content)
