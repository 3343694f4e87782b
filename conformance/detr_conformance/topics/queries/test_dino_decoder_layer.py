"""DINO's decoder: a layer, and where it looks. Clauses: DEC-1 to DEC-12."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from detr_conformance.harness.block import agrees, expectations, forward, parts, while_training
from detr_conformance.harness.block_case import parameters_of, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.queries.cases.decoder import PLAIN, asking, decoder_case, one_layer, two_layers
from detr_conformance.topics.queries.cases.special_decoder import (
    many_levels,
    on_wider_maps,
    silenced,
    small_streams,
    whole_maps,
)
from detr_conformance.topics.queries.checks.decoder import parts_agree
from detr_conformance.topics.queries.checks.dropping import Site, drops_what_it_adds

OPERATION = "dino_decoder"


# -- a layer --------------------------------------------------------------------------------------------------


@covers("DEC-1", cases=lambda subject: [*one_layer(subject), small_streams(subject)])
def test_order_of_a_layer(subject: Subject, case: Case) -> None:
    parts_agree(subject, case, "hidden_states")


def large_positions(subject: Subject) -> Iterator[Case]:
    """Positions several times as large as what they are added to."""
    case = decoder_case(subject, PLAIN, note="large positions")
    large = parameters_of(case)["ref_point_head.layers.1.bias"] * 4
    yield with_parameters(case, ref_point_head__layers__1__bias=large)


@covers("DEC-2", cases=large_positions)
def test_query_positions(subject: Subject, case: Case) -> None:
    parts_agree(subject, case, "hidden_states")


@covers("DEC-3", cases=two_layers)
def test_mask_of_the_queries(subject: Subject, case: Case) -> None:
    mask = case["attn_mask"]
    require(mask.any() and not torch.equal(mask, mask.T), "the mask is symmetric")
    agrees(subject, case)
    agrees(subject, case.having(attn_mask=None))


@covers("DEC-4", cases=two_layers)
def test_padding(subject: Subject, case: Case) -> None:
    agrees(subject, case.having(memory=case["memory"] * 3))
    agrees(subject, case.having(key_padding_mask=None))


def both_activations(subject: Subject) -> Iterator[Case]:
    for activation in ("relu", "gelu"):
        yield decoder_case(subject, replace(PLAIN, activation=activation))


@covers("DEC-5", cases=both_activations)
def test_activation(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def everything_dropped(subject: Subject) -> Iterator[Case]:
    """At probability 1, with a self-attention whose result without weights is zero."""
    case = decoder_case(subject, replace(PLAIN, dropout=1.0), note="everything dropped")
    yield silenced(case, "attentions.0.out_proj.bias")


@covers("DEC-6", cases=everything_dropped)
def test_dropout(subject: Subject, case: Case) -> None:
    """In evaluation nothing is dropped; while training all that sublayers add is, and nothing else."""
    agrees(subject, case)
    bare = silenced(case, "out_proj.weight", "output_proj.weight", "output_proj.bias", "ffns.0.layers.1.weight")
    bare = silenced(bare, "ffns.0.layers.1.bias")
    right = expectations(subject, bare, backward=False)["output"]
    output = while_training(subject, case)
    for name, got in parts(case, output).items():
        subject.compare(name, got, parts(case, right.expected)[name], parts(case, right.limit)[name])


RATE = 0.4


def dropping(subject: Subject) -> Iterator[Case]:
    """One image of which every query is a token by itself."""
    s = replace(PLAIN, dropout=RATE, valid=PLAIN.valid[:1], queries=6)
    yield decoder_case(subject, s, note="one image, to be repeated")


@covers("DEC-6", cases=dropping, once=True)
def test_law_of_dropout(subject: Subject, case: Case) -> None:
    """What deformable attention and network add, in each layer; of self-attention the result may stay whole."""
    for layer in range(2):
        for sublayer in ("attentions.1", "ffns.0"):
            drops_what_it_adds(subject, case, Site(f"layers.{layer}.{sublayer}"), RATE)


# -- where a layer looks --------------------------------------------------------------------------------------


@covers("DEC-7", cases=one_layer)
def test_valid_ratios(subject: Subject, case: Case) -> None:
    ratios = case["valid_ratios"]
    require((ratios[0, 0] != ratios[0, 1]).all() and (ratios[..., 0] != ratios[..., 1]).any(), "ratios are equal")
    boxes = case["reference_points"].clone()
    boxes[..., 2:] += 0.5
    parts_agree(subject, case.having(reference_points=boxes), "hidden_states")


@covers("DEC-7", cases=many_levels)
def test_each_level_has_its_own_ratios(subject: Subject, case: Case) -> None:
    parts_agree(subject, case, "hidden_states")


@covers("DEC-8", cases=large_positions)
def test_positions_are_made_anew(subject: Subject, case: Case) -> None:
    """By heads that move every box far, and one attention: the queries' own."""
    still = silenced(case, "attentions.1.output_proj.weight")
    parts_agree(subject, still, "hidden_states")


@covers("DEC-9", cases=two_layers)
def test_from_box_to_position(subject: Subject, case: Case) -> None:
    boxes = case["reference_points"].clone()
    boxes[0, 0], boxes[1, 0] = (torch.tensor(box) for box in ((0.9, 0.2, 0.1, 0.6), (0.3, 0.7, 0.8, 0.2)))
    parts_agree(subject, case.having(reference_points=boxes), "hidden_states")


@covers("DEC-10", cases=lambda subject: [decoder_case(subject, asking(subject, PLAIN, scaled=True))])
def test_scaled_boxes_are_embedded(subject: Subject, case: Case) -> None:
    ratios = case["valid_ratios"]
    require((ratios[:, 0] != ratios.mean(1)).any() and (ratios[:, 0] != 1).any(), "levels have equal ratios")
    agrees(subject, case)


@covers("DEC-10", cases=lambda subject: [decoder_case(subject, asking(subject, PLAIN, scaled=False))])
def test_boxes_are_embedded_as_they_are(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def unchanged_on_wider_maps(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, backward=False)["output"]
    for factor in (2, 4):
        output = forward(subject, on_wider_maps(subject, case, factor))
        subject.compare("output on wider maps", output, right.expected, right.limit)


@covers("DEC-11", cases=lambda subject: [whole_maps(subject, asking(subject, PLAIN, scaled=False))])
def test_padding_changes_nothing(subject: Subject, case: Case) -> None:
    unchanged_on_wider_maps(subject, case)


@covers("DEC-12", cases=lambda subject: [whole_maps(subject, asking(subject, PLAIN, scaled=True))])
def test_padding_acts_through_positions_alone(subject: Subject, case: Case) -> None:
    unchanged_on_wider_maps(subject, silenced(case, "ref_point_head.layers.1.weight"))
