"""DINO's decoder. Clauses: spec chapter 12."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from detr_conformance.harness.block import (
    agrees,
    expectations,
    forward,
    fresh,
    gradients_agree,
    parameters_by_name,
    parts,
    while_training,
)
from detr_conformance.harness.block_case import parameters_of, settings_of, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import HALF, covers
from detr_conformance.topics.queries.cases.decoder import (
    LONG,
    SMOOTH,
    DecoderStructure,
    asking,
    decoder_case,
    drawn_decoders,
    smooth_decoders,
)
from detr_conformance.topics.queries.cases.special_decoder import (
    fine_boxes,
    on_wider_maps,
    silenced,
    small_streams,
    whole_maps,
)
from detr_conformance.topics.queries.checks.decoder import (
    agrees_without_rounded_inputs,
    no_gradient,
    parts_agree,
    reaches,
)

OPERATION = "dino_decoder"

PLAIN = DecoderStructure()
ONE_LAYER = replace(PLAIN, layers=1)


def one_layer(subject: Subject) -> list[Case]:
    return [decoder_case(subject, ONE_LAYER)]


def two_layers(subject: Subject) -> list[Case]:
    return [decoder_case(subject, PLAIN)]


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


# -- where a layer looks --------------------------------------------------------------------------------------


@covers("DEC-7", cases=one_layer)
def test_valid_ratios(subject: Subject, case: Case) -> None:
    ratios = case["valid_ratios"]
    require((ratios[0, 0] != ratios[0, 1]).all() and (ratios[..., 0] != ratios[..., 1]).any(), "ratios are equal")
    boxes = case["reference_points"].clone()
    boxes[..., 2:] += 0.5
    parts_agree(subject, case.having(reference_points=boxes), "hidden_states")


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


# -- refinement -----------------------------------------------------------------------------------------------


@covers("DEC-13", cases=lambda subject: [decoder_case(subject, replace(PLAIN, layers=3))])
def test_references_move(subject: Subject, case: Case) -> None:
    right = parts(case, expectations(subject, case, backward=False)["output"].expected)["references"]
    require(((right[1:] - right[:-1]).abs().amax((1, 2, 3)) > 0.05).all(), "the heads move no box")
    agrees(subject, case)


@covers("DEC-14", cases=one_layer)
def test_the_bare_output_refines(subject: Subject, case: Case) -> None:
    parts_agree(subject, case, "references")


@covers("DEC-15", cases=one_layer)
def test_added_before_the_sigmoid(subject: Subject, case: Case) -> None:
    """Heads that return the same for every query show what is done with it."""
    constant = silenced(case, "bbox_embed.0.layers.2.weight")
    parts_agree(subject, constant, "references", "pred_boxes")


def boxes_on_the_border(subject: Subject) -> Iterator[Case]:
    """Of two layers, so that the second one is fed boxes near the border as well."""
    for eps in (1e-3, 0.05):
        case = decoder_case(subject, replace(PLAIN, eps=eps), note=f"boxes within {eps} of the border")
        boxes = case["reference_points"].clone()
        boxes[:, 0] = torch.tensor((0.0, 1.0, eps / 2, 1 - eps / 2))
        boxes[:, 1, 2:] = 0
        yield case.having(reference_points=boxes)


@covers("DEC-16", cases=boxes_on_the_border)
def test_epsilon(subject: Subject, case: Case) -> None:
    parts_agree(subject, case, "references", "pred_boxes")


# -- predictions ----------------------------------------------------------------------------------------------


@covers("DEC-17", cases=lambda subject: [*two_layers(subject), small_streams(subject)])
def test_norm(subject: Subject, case: Case) -> None:
    parts_agree(subject, case, "hidden_states", "pred_logits", "pred_boxes")


@covers("DEC-18", cases=two_layers)
def test_the_norm_is_not_fed_forward(subject: Subject, case: Case) -> None:
    scale = parameters_of(case)["norm.weight"] * 3
    parts_agree(subject, with_parameters(case, norm__weight=scale), "hidden_states")


@covers("DEC-19", cases=two_layers)
def test_predicted_from_where_the_layer_looked(subject: Subject, case: Case) -> None:
    parts_agree(subject, case, "pred_boxes")


@covers(
    "DEC-20", cases=lambda subject: [decoder_case(subject, asking(subject, replace(PLAIN, layers=3), shared=False))]
)
def test_separate_heads(subject: Subject, case: Case) -> None:
    parts_agree(subject, case, "references", "pred_logits", "pred_boxes")


@covers("DEC-21", cases=lambda subject: [decoder_case(subject, asking(subject, PLAIN, shared=True))])
def test_shared_heads(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def shared_and_smooth(subject: Subject) -> Iterator[Case]:
    """Of both kinds of looking forward that the target has, the loss of one layer's boxes alone."""
    for twice in (True, False):
        if subject.variant("look_forward") in ("any", "twice" if twice else "once"):
            s = asking(subject, SMOOTH, shared=True, twice=twice)
            case = decoder_case(subject, s, note="shared heads", smooth=True)
            for layer in range(s.layers):
                shares = {name: torch.zeros_like(part) for name, part in parts(case, case["grad_output"]).items()}
                shares["pred_boxes"][layer] = parts(case, case["grad_output"])["pred_boxes"][layer]
                yield case.having(grad_output=torch.cat([share.flatten() for share in shares.values()]))


@covers("DEC-21", cases=shared_and_smooth, feature="backward", once=True)
def test_shared_heads_are_trained_through_each_call(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case)


@covers("DEC-22", cases=lambda subject: [decoder_case(subject, replace(PLAIN, layers=3))])
def test_references_that_are_returned(subject: Subject, case: Case) -> None:
    first = parts(case, forward(subject, case))["references"][0]
    subject.compare_exactly("references[0]", first, case["reference_points"])
    parts_agree(subject, case, "references")


def several_depths(subject: Subject) -> Iterator[Case]:
    for layers in (1, 2, 3):
        yield decoder_case(subject, replace(PLAIN, layers=layers))
    yield decoder_case(subject, replace(PLAIN, valid=PLAIN.valid[:1], layers=1, queries=1), note="one of everything")


@covers("DEC-23", cases=several_depths)
def test_any_number_of_layers(subject: Subject, case: Case) -> None:
    agrees(subject, case)


# -- gradients ------------------------------------------------------------------------------------------------

BAND = ["#...", "##..", ".##.", "..##"]
DIAGONAL = ["#...", ".#..", "..#.", "...#"]
NONE = ["...."] * 4
DEEP = replace(SMOOTH, layers=4)


def four_layers(subject: Subject, **alternatives: bool) -> list[Case]:
    return [decoder_case(subject, asking(subject, DEEP, **alternatives), note="four layers", smooth=True)]


def either_way(subject: Subject) -> Iterator[Case]:
    """Looking forward twice and once, as far as the target does both."""
    for twice in (True, False):
        if subject.variant("look_forward") in ("any", "twice" if twice else "once"):
            yield from four_layers(subject, twice=twice)


def with_own_heads(case: Case, rows: list[str]) -> list[str]:
    """The rows as they are, or of the one head that all layers share."""
    shared = settings_of(case)["shared_heads"]
    return ["#" if "#" in row else "." for row in rows] if shared else rows


@covers("DEC-24", cases=either_way, feature="backward", once=True)
def test_fed_boxes_are_detached(subject: Subject, case: Case) -> None:
    reaches(subject, case, "hidden_states", "bbox_embed", with_own_heads(case, NONE))


@covers("DEC-25", cases=lambda subject: four_layers(subject, shared=False, twice=True), feature="backward", once=True)
def test_look_forward_twice(subject: Subject, case: Case) -> None:
    reaches(subject, case, "pred_boxes", "bbox_embed", BAND)
    reaches(subject, case, "references", "bbox_embed", ["....", *DIAGONAL])


@covers("DEC-26", cases=lambda subject: four_layers(subject, shared=False, twice=False), feature="backward", once=True)
def test_look_forward_once(subject: Subject, case: Case) -> None:
    reaches(subject, case, "pred_boxes", "bbox_embed", DIAGONAL)
    reaches(subject, case, "references", "bbox_embed", ["....", *NONE])


@covers("DEC-27", cases=either_way, feature="backward", once=True)
def test_initial_boxes_are_constants(subject: Subject, case: Case) -> None:
    no_gradient(subject, case, "reference_points")


@covers("DEC-28", cases=either_way, feature="backward", once=True)
def test_losses_keep_to_their_heads(subject: Subject, case: Case) -> None:
    reaches(subject, case, "pred_logits", "class_embed", with_own_heads(case, DIAGONAL))
    reaches(subject, case, "pred_logits", "bbox_embed", with_own_heads(case, NONE))
    reaches(subject, case, "pred_boxes", "class_embed", with_own_heads(case, NONE))


# -- numbers --------------------------------------------------------------------------------------------------


@covers("DEC-29", cases=lambda subject: drawn_decoders(subject), share=0.25)
def test_accuracy(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


@covers("DEC-29", cases=lambda subject: [decoder_case(subject, LONG, note="a long level")])
def test_accuracy_on_long_levels(subject: Subject, case: Case) -> None:
    require(case["spatial_shapes"].max() >= 50, "no long level")
    agrees(subject, case, precise=True)


@covers("DEC-30", cases=lambda subject: [fine_boxes(subject)], dtypes=HALF)
def test_boxes_in_float32(subject: Subject, case: Case) -> None:
    agrees_without_rounded_inputs(subject, case, "hidden_states")


@covers("DEC-31", cases=smooth_decoders, feature="backward")
def test_gradient_accuracy(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, precise=True)


ZERO_AT_FIRST = (
    "bbox_embed.0.layers.2.",
    "bbox_embed.1.layers.2.",
    "attentions.1.sampling_offsets.weight",
    "attentions.1.attention_weights.",
)


def freshly_initialised(subject: Subject) -> Iterator[Case]:
    yield decoder_case(subject, replace(PLAIN, classes=7), note="own parameters")


@covers("DEC-32", cases=freshly_initialised, once=True)
def test_initialisation(subject: Subject, case: Case) -> None:
    module = fresh(subject, case)
    own = parameters_by_name(OPERATION, module, case)
    found = {name: torch.cat(several).detach().cpu().double() for name, several in own.items()}
    for name, tensor in found.items():
        if name.startswith("class_embed") and name.endswith("bias"):
            subject.compare(name, tensor, torch.full_like(tensor, -math.log(99)), torch.full_like(tensor, 1e-2))
        elif any(part in name for part in ZERO_AT_FIRST):
            subject.compare_exactly(name, tensor, torch.zeros_like(tensor))
    first = parts(case, forward(subject, case, module))
    reference = case["reference_points"].double()
    boxes = first["pred_boxes"].detach().cpu().double()
    for layer, predicted in enumerate(boxes):
        near = torch.full_like(reference, 4 * torch.finfo(subject.torch_dtype).eps)
        subject.compare(f"pred_boxes[{layer}]", predicted, reference, near)
