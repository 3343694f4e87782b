"""Where a whole model parts from the reference: a defect planted in any stage is found in that stage, none before it.

What may hide one: a norm and heads that serve all layers, heads that are called twice in a layer, and implementations
that call them in another order than the reference.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detr_conformance.isolation.stage_values import stage_calls
from detr_conformance.staging.divergence import compared_stages, first_divergence
from detr_reference.detectors import dino
from detr_reference.detectors.config import DINOConfig
from detr_reference.detectors.dino import DINO
from detr_reference.queries.dino_decoder import DINODecoder
from detr_reference.queries.look_forward_twice import initial_references, next_references, predicted_boxes
from detr_reference.queries.reference_points import decoder_reference_points
from helpers.planted_defects import (
    FORMS,
    Change,
    assert_found,
    case_of,
    every_stage,
    planted,
    reference_order,
    scaled,
    subject_of,
    swapped,
    without_a_channel,
)


@pytest.mark.parametrize("form", FORMS)
def test_the_reference_diverges_nowhere(form: str) -> None:
    subject = subject_of(dino.build)
    case = case_of(subject, form)
    stages = compared_stages(subject, case)
    assert all(stage.ratio <= 1 for stage in stages)
    assert [stage.name for stage in stages] == reference_order(case, subject)
    said = first_divergence(subject, case)
    assert said is not None
    assert said.startswith("first divergence: behind all stages; error / limit of each: backbone (")
    if form == FORMS[0]:
        assert {stage.name for stage in stages} == {name for name, _ in every_stage()}


@pytest.mark.parametrize(("stage", "path"), list(every_stage()))
@pytest.mark.parametrize("change", [scaled, without_a_channel])
def test_a_defect_of_each_stage(stage: str, path: str, change: Change) -> None:
    subject = subject_of(planted(path, change))
    case = case_of(subject)
    assert_found(compared_stages(subject, case), stage, reference_order(case, subject))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("number", range(3))
def test_norm_and_heads_that_ran_before_do_not_hide_a_layer(form: str, number: int) -> None:
    """What layer i - 1 called is called again by layer i, and errs then."""
    stage = f"decoder.{number}"
    subject = subject_of(planted(f"transformer.decoder.layers.{number}", scaled))
    case = case_of(subject, form)
    assert_found(compared_stages(subject, case), stage, reference_order(case, subject))


@pytest.mark.parametrize("number", range(3))
def test_exchanged_norms(number: int) -> None:
    """The exchange of Deformable DETR's norm1 and norm2, which a strict load does not notice."""
    subject = subject_of(swapped(f"transformer.decoder.layers.{number}"))
    case = case_of(subject)
    assert_found(compared_stages(subject, case), f"decoder.{number}", reference_order(case, subject))


class PredictsAfterwards(DINODecoder):
    """All layers, with their refinements; then all predictions, as in IDEA-Research/DINO and detrex."""

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        memory: Tensor,
        reference_points: Tensor,
        box_heads: list[nn.Module],
        class_heads: list[nn.Module],
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        *,
        valid_ratios: Tensor,
        learned_references: bool = False,
        **geometry: Tensor,
    ) -> dict[str, Tensor]:
        references, outputs = [initial_references(reference_points)], []
        for layer, head in zip(self.layers, box_heads, strict=True):
            fed = references[-1].fed
            position = self._query_pos(fed, valid_ratios)
            points = decoder_reference_points(fed, valid_ratios)
            query = layer(query, memory, position, attn_mask, key_padding_mask, reference_points=points, **geometry)
            references.append(next_references(head(query), references[-1], twice=True))
            outputs.append(query)
        states = [self.norm(output) for output in outputs]
        logits = [head(state) for head, state in zip(class_heads, states, strict=True)]
        boxes = [
            predicted_boxes(head(state), used)
            for head, state, used in zip(box_heads, states, references[:-1], strict=True)
        ]
        return {"pred_logits": torch.stack(logits), "pred_boxes": torch.stack(boxes)}


@pytest.mark.parametrize("form", FORMS)
def test_another_order_of_calls_is_right(form: str) -> None:
    def build(config: DINOConfig, state_dict: dict[str, Tensor]) -> DINO:
        model = dino.build(config, state_dict)
        model.transformer.decoder.__class__ = PredictsAfterwards
        return model

    subject = subject_of(build)
    assert all(stage.ratio <= 1 for stage in compared_stages(subject, case_of(subject, form)))


def test_a_stage_is_what_it_was_when_it_ran() -> None:
    """Whatever is done to it in place afterwards."""
    module = nn.Sequential(nn.Identity(), nn.Linear(2, 3).double())
    given = torch.ones(4, 2, dtype=torch.float64)

    def call() -> None:
        module(given).zero_()
        given.zero_()

    found = dict(stage_calls(module, {"in": "0>input", "out": "1"}, call))
    assert found["in"].eq(1).all()
    assert found["out"].ne(0).all()
