"""What encoder and decoder layers have in common. Clauses: spec chapter 7."""

from __future__ import annotations

from detr_conformance.harness.block import agrees, gradients_agree
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.transformer import cases
from detr_conformance.topics.transformer.checks import dropping, drops, padded_rows_agree

OPERATIONS = ("encoder_layer", "decoder_layer")


# -- the order -----------------------------------------------------------------------------------------------


@covers("TL-1", cases=cases.other_orders, once=True)
def test_order(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-2", cases=cases.post_norm_orders, once=True)
def test_post_norm(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-3", cases=cases.pre_norm_orders, once=True)
def test_pre_norm(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-4", cases=cases.network_before_another, once=True)
def test_the_stream_moves_on(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-5", cases=cases.misleading_orders, once=True)
def test_the_first_entry_decides(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-6", cases=cases.few_norms, once=True)
def test_no_other_norm(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-7", cases=cases.several_of_a_kind, once=True)
def test_numbers_of_the_parameters(subject: Subject, case: Case) -> None:
    agrees(subject, case)


# -- attention -----------------------------------------------------------------------------------------------


@covers("TL-8", cases=cases.current_streams, once=True)
def test_self_attention_looks_at_what_is_seen(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-9", cases=cases.with_positions, once=True)
def test_positions_in_self_attention(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-11", cases=cases.with_positions, once=True)
def test_positions_do_not_enter_the_stream(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-12", cases=cases.without_some_positions, once=True)
def test_no_position_nothing_added(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-14", cases=cases.with_query_padding)
def test_padding_of_the_stream(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-15", cases=cases.with_query_padding, once=True)
def test_padded_queries_are_queries(subject: Subject, case: Case) -> None:
    padded_rows_agree(subject, case)


@covers("TL-17", cases=cases.with_query_mask)
def test_mask_of_self_attention(subject: Subject, case: Case) -> None:
    agrees(subject, case)


# -- norm and feed-forward network ---------------------------------------------------------------------------


@covers("TL-20", cases=cases.small_streams)
def test_small_variances(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-20", cases=cases.ordinary_streams)
def test_layer_norm(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-21", cases=cases.both_activations)
def test_feed_forward_network(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("TL-22", cases=dropping, once=True)
def test_dropout(subject: Subject, case: Case) -> None:
    drops(subject, case)


# -- numbers -------------------------------------------------------------------------------------------------


@covers("TL-23", cases=cases.drawn_layers, share=0.5)
def test_accuracy(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


@covers("TL-23", cases=cases.complete)
def test_accuracy_with_everything(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


@covers("TL-24", cases=cases.smooth_layers, feature="backward", plain=agrees)
def test_gradient_accuracy(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, precise=True)
