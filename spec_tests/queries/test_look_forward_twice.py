"""Which loss reaches which head: look forward once and twice, separate and shared heads, and where nothing arrives."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detr_reference.queries import dino_decoder
from detr_reference.queries.box_refinement import refine_boxes
from detr_reference.queries.dino_decoder import DINODecoder
from detr_reference.queries.look_forward_twice import References, initial_references, next_references, predicted_boxes
from helpers.tiny.dino_decoder_cases import call, perturbed


def reaches(losses: Sequence[Tensor], heads: Sequence[nn.Module]) -> list[str]:
    """Row i, column j: # where loss i has a gradient with respect to the parameters of head j."""
    rows = []
    for loss in losses:
        row = ""
        for head in heads:
            gradients = torch.autograd.grad(loss, list(head.parameters()), retain_graph=True, allow_unused=True)
            row += "#" if any(g is not None and g.any() for g in gradients) else "."
        rows.append(row)
    return rows


def losses_of(layers: Tensor) -> list[Tensor]:
    return [(layer * torch.randn_like(layer)).sum() for layer in layers]


def band_in_the_chapter(column: int) -> list[str]:
    """A column of the table of chapter 12: 2 for looking forward twice, 3 for once, 4 with nothing detached."""
    chapter = (files("detr_reference") / "spec" / "12-dino-decoder.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in chapter.splitlines() if line.startswith("| pred_boxes_")]
    return [row[column].strip(" `").replace(" ", "") for row in rows]


BANDS = {True: ["#...", "##..", ".##.", "..##"], False: ["#...", ".#..", "..#.", "...#"]}


@pytest.mark.parametrize("twice", [True, False])
def test_separate_heads(twice: bool) -> None:
    decoder = perturbed(num_layers=4, look_forward_twice=twice)
    found = decoder(**call())
    assert reaches(losses_of(found["pred_boxes"]), decoder.bbox_embed) == BANDS[twice]
    assert reaches(losses_of(found["pred_logits"]), decoder.class_embed) == ["#...", ".#..", "..#.", "...#"]
    assert reaches(losses_of(found["pred_logits"]), decoder.bbox_embed) == ["...."] * 4
    assert reaches(losses_of(found["pred_boxes"]), decoder.class_embed) == ["...."] * 4


def test_nothing_detached(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fed undetached lets every loss reach all earlier heads."""

    def undetached(delta: Tensor, references: References, *, twice: bool, eps: float) -> References:
        refined = refine_boxes(delta, references.fed, eps=eps)
        return References(fed=refined, returned=refined)

    monkeypatch.setattr(dino_decoder, "next_references", undetached)
    decoder = perturbed(num_layers=4)
    assert reaches(losses_of(decoder(**call())["pred_boxes"]), decoder.bbox_embed) == band_in_the_chapter(4)


def test_the_table_of_the_chapter() -> None:
    assert band_in_the_chapter(2) == BANDS[True]
    assert band_in_the_chapter(3) == BANDS[False]
    assert band_in_the_chapter(4) == ["#...", "##..", "###.", "####"]


class Copies(nn.Module):
    """A head that gives every call parameters of its own, with equal numbers."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.of_each_call: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        copies = {name: p.detach().clone().requires_grad_() for name, p in self.head.named_parameters()}
        self.of_each_call.append(copies)
        return torch.func.functional_call(self.head, copies, (x,))


@pytest.mark.parametrize("twice", [True, False])
def test_shared_heads_by_copies_of_each_call(twice: bool) -> None:
    """With one head for all layers its gradient is a sum; the calls of it show the same band."""
    decoder = perturbed(num_layers=4, look_forward_twice=twice, shared_heads=True)
    head = Copies(decoder.bbox_embed[0])
    found = DINODecoder.forward(decoder, **call(), box_heads=[head] * 4, class_heads=[decoder.class_embed[0]] * 4)
    assert len(head.of_each_call) == 8  # for the prediction and for the refinement of each layer
    rows = []
    for loss in losses_of(found["pred_boxes"]):
        reached = []
        for copies in head.of_each_call:
            gradients = torch.autograd.grad(loss, list(copies.values()), retain_graph=True, allow_unused=True)
            reached.append(any(g is not None and bool(g.any()) for g in gradients))
        rows.append("".join("#" if prediction or refinement else "." for prediction, refinement in _pairs(reached)))
    assert rows == BANDS[twice]


def _pairs(flags: list[bool]) -> list[tuple[bool, bool]]:
    return list(zip(flags[::2], flags[1::2], strict=True))


def test_both_predict_the_same() -> None:
    """Detaching is about gradients alone."""
    twice = perturbed(look_forward_twice=True)
    once = perturbed(look_forward_twice=False)
    once.load_state_dict(twice.state_dict())
    given = call()
    for name, expected in twice(**given).items():
        assert torch.equal(once(**given)[name], expected)


@pytest.mark.parametrize("twice", [True, False])
def test_no_gradient_of_the_initial_boxes(twice: bool) -> None:
    decoder, given = perturbed(look_forward_twice=twice), call()
    boxes = given["reference_points"].requires_grad_()
    found = decoder(**given)
    for output in (each for each in found.values() if each.requires_grad):
        assert torch.autograd.grad(output.sum(), boxes, retain_graph=True, allow_unused=True) == (None,)
    assert found["references"].requires_grad == twice


def test_hidden_states_reach_no_box_head() -> None:
    """References are fed detached: states depend on earlier box heads in value, and have no gradient of them."""
    decoder, given = perturbed(), call()
    states = decoder(**given)["hidden_states"]
    assert reaches(losses_of(states), decoder.bbox_embed) == ["..."] * 3
    with torch.no_grad():
        decoder.bbox_embed[0].layers[-1].bias.add_(0.5)
    changed = (decoder(**given)["hidden_states"] - states).abs().amax((1, 2, 3)) > 1e-3
    assert changed.tolist() == [False, True, True]


@pytest.mark.parametrize("twice", [True, False])
def test_one_step(twice: bool) -> None:
    """Equal numbers, unequal gradients."""
    delta: dict[str, Any] = {name: torch.randn(1, 3, 4, requires_grad=True) for name in ("refine", "predict")}
    first = initial_references(torch.rand(1, 3, 4, requires_grad=True))
    second = next_references(delta["refine"], first, twice=twice)
    assert torch.equal(second.fed, second.returned)
    assert not first.fed.requires_grad
    assert not first.returned.requires_grad
    assert not second.fed.requires_grad
    assert second.returned.requires_grad == twice
    predicted_boxes(delta["predict"], second).sum().backward()
    assert delta["predict"].grad.all()
    assert (delta["refine"].grad is not None) == twice
