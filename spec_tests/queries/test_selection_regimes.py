"""The suite's cases of decoders and of the selection reach the sizes that models have; emptied, a test here fails."""

from __future__ import annotations

import pytest

from detr_conformance.harness.block_case import settings_of
from detr_conformance.harness.subject import Subject
from detr_conformance.operations import OPERATIONS, resolve
from detr_conformance.topics.queries.cases.selection import many_cells as cells_of_proposals
from detr_conformance.topics.queries.cases.selection import many_pyramids
from detr_conformance.topics.queries.cases.special_decoder import as_deep_as_published, many_levels, published
from detr_conformance.topics.queries.test_dino_decoder_gradients import BAND, DIAGONAL, LAYERS
from detr_conformance.topics.queries.test_dino_decoder_layer import dropping
from detr_conformance.topics.queries.test_select_queries import many_cells

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def subject_of(operation: str) -> Subject:
    return Subject(operation, resolve(OPERATIONS[operation].reference))


def test_decoders_read_four_levels_fewer_and_more_each_with_ratios_of_its_own() -> None:
    cases = list(many_levels(subject_of("dino_decoder")))
    assert {len(case["spatial_shapes"]) for case in cases} >= {1, 3, 4, 5, 7}
    deepest = max(cases, key=lambda case: len(case["spatial_shapes"]))
    ratios = deepest["valid_ratios"]
    assert (ratios[:, 3] != ratios[:, 4]).any()
    assert (ratios == 1).flatten(1).all(1).any()
    assert (ratios != 1).flatten(1).any(1).any()


def test_decoders_are_as_deep_and_as_wide_as_published() -> None:
    subject = subject_of("dino_decoder")
    (deep,) = as_deep_as_published(subject)
    assert settings_of(deep)["num_layers"] == 6
    assert len(deep["spatial_shapes"]) == 4
    wide = published(subject)
    assert wide["query"].shape[1] > 256
    chosen = settings_of(wide)
    assert [chosen[name] for name in ("embed_dim", "num_heads", "num_levels", "num_points")] == [256, 8, 4, 4]


def test_the_bands_are_those_of_the_chapter() -> None:
    assert LAYERS > 6
    assert BAND[:3] == ["#......", "##.....", ".##...."]
    assert DIAGONAL[6] == "......#"


def test_dropout_is_judged_with_several_queries() -> None:
    (case,) = dropping(subject_of("dino_decoder"))
    assert len(case["query"]) == 1
    assert case["query"].shape[1] >= 5


def test_selections_are_made_of_as_many_cells_as_a_photograph_has() -> None:
    sizes = [case["class_logits"].shape for case in many_cells(subject_of("select_queries"))]
    assert max(cells for _, cells, _ in sizes) > 20_000
    assert any(4096 < cells < 8192 for _, cells, _ in sizes)
    assert any(classes > 64 for *_, classes in sizes)


def test_references_and_proposals_are_made_on_many_levels_of_many_images() -> None:
    references = list(many_pyramids(subject_of("encoder_reference_points")))
    assert {len(case["spatial_shapes"]) for case in references} >= {4, 5, 7}
    assert max(len(case["valid_ratios"]) for case in references) > 32
    proposals = list(cells_of_proposals(subject_of("encoder_proposals")))
    assert max(case["memory"].shape[1] for case in proposals) > 20_000
    assert max(len(case["memory"]) for case in proposals) >= 5
