"""Cases of `encoder_layer` and `decoder_layer`: every parameter is random, lengths are unequal unless asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from detr_conformance.harness.block_case import block_case, parameters_of, with_parameters
from detr_conformance.harness.case import LAYOUTS, Case
from detr_conformance.harness.few_shapes.drawing import ANY_LAYOUT, SEEDS, composite
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.topics.feed_forward.cases import random_parameters

Order = tuple[str, ...]

SIZES = {"embed_dim": 12, "num_heads": 3, "feedforward_dim": 10}
STANDARD: dict[tuple[str, str], Order] = {
    ("encoder_layer", "post-norm"): ("self_attn", "norm", "ffn", "norm"),
    ("encoder_layer", "pre-norm"): ("norm", "self_attn", "norm", "ffn"),
    ("decoder_layer", "post-norm"): ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm"),
    ("decoder_layer", "pre-norm"): ("norm", "self_attn", "norm", "cross_attn", "norm", "ffn"),
}


# -- orders ---------------------------------------------------------------------------------------------------


def standard(subject: Subject, kind: str | None = None) -> Order:
    """DETR's order of this kind, post-norm by default; the only one of a target that has but one.

    Raises:
        NotProvided: the target has no order of this kind.
    """
    offered = subject.variant("operation_order")
    if offered == "any":
        return STANDARD[subject.operation, kind or "post-norm"]
    if kind not in (None, offered):
        raise NotProvided(f"there are no {kind} layers")
    return STANDARD[subject.operation, offered]


def free_orders(subject: Subject, *orders: str) -> list[Order]:
    """Those of the orders, written as in "norm self ffn", that are orders of the subject's kind of layer.

    Raises:
        NotProvided: the target has one fixed order.
    """
    if subject.variant("operation_order") != "any":
        raise NotProvided(f"the order is always that of a {subject.variant('operation_order')} layer")
    return [order for order in map(_parsed, orders) if _fits(subject, order)]


def and_free_orders(subject: Subject, *orders: str) -> list[Order]:
    """The standard order, and these too where the target has any."""
    free = subject.variant("operation_order") == "any"
    return [standard(subject), *(free_orders(subject, *orders) if free else ())]


def _parsed(order: str) -> Order:
    return tuple(name if name in ("norm", "ffn") else f"{name}_attn" for name in order.split())


def _fits(subject: Subject, order: Order) -> bool:
    return ("cross_attn" in order) == (subject.operation == "decoder_layer")


# -- cases ----------------------------------------------------------------------------------------------------


def layer_case(
    subject: Subject,
    order: Order,
    *seed: Any,
    note: str = "",
    positions: bool = False,
    padding: bool = False,
    masks: bool = False,
    batch: int = 2,
    queries: int = 5,
    keys: int = 7,
    **settings: Any,
) -> Case:
    """A random call of a random layer; positions, padding masks and attention masks where asked for."""
    settings = {**SIZES, "operation_order": order, **settings}
    structure = (positions, padding, masks, batch, queries, keys)
    fill = Filler(
        subject.dtype, subject.settings.seed, subject.operation, note, structure, sorted(settings.items()), *seed
    )
    parameters = random_parameters(subject.operation, settings, fill)
    inputs = {"query": fill.normal(batch, queries, settings["embed_dim"])}
    inputs |= _if(positions, "query_pos", fill.normal(batch, queries, settings["embed_dim"]))
    inputs |= _if(padding, "query_key_padding_mask", padded(batch, queries))
    inputs |= _if(masks, "attn_mask", forbidding(fill, queries, queries))
    if subject.operation == "decoder_layer":
        inputs["key"] = fill.normal(batch, keys, settings["embed_dim"])
        inputs |= _if(positions, "key_pos", fill.normal(batch, keys, settings["embed_dim"]))
        inputs |= _if(padding, "key_padding_mask", padded(batch, keys).flip(0))
        inputs |= _if(masks, "cross_attn_mask", forbidding(fill, queries, keys))
    return block_case(subject, inputs, parameters, settings, note or _described(positions, padding, masks))


def _described(positions: bool, padding: bool, masks: bool) -> str:
    given = {"positions": positions, "padding": padding, "masks": masks}
    return "a layer with " + (" and ".join(name for name in given if given[name]) or "neither positions nor masks")


def _if(wanted: bool, name: str, tensor: Tensor) -> dict[str, Tensor]:
    return {name: tensor} if wanted else {}


def padded(batch: int, length: int) -> Tensor:
    """(batch, length): image b lacks its last b + 1 tokens, but never the first one."""
    missing = torch.arange(1, batch + 1)[:, None].clamp(max=length - 1)
    return torch.arange(length) >= length - missing


def forbidding(fill: Filler, queries: int, keys: int) -> Tensor:
    """(query, key): True forbids about every third key; the first is left to everybody, so that no row is empty."""
    mask = fill.chance(0.35, queries, keys)
    if keys > 1:
        mask[0, 1] = True
    mask[:, 0] = False
    return mask


def representative_encoder_layer(subject: Subject) -> list[Case]:
    return list(_representative(subject))


def representative_decoder_layer(subject: Subject) -> list[Case]:
    return list(_representative(subject))


def _representative(subject: Subject) -> Iterator[Case]:
    given = {"positions": True, "padding": True, "masks": True}
    for order in representative_orders(subject):
        yield layer_case(subject, order, note="everything given", activation="gelu", **given)
    yield layer_case(subject, standard(subject), note="only what must be given", activation="gelu", batch=3)


def representative_orders(subject: Subject) -> list[Order]:
    """The standard orders that the target has."""
    if subject.variant("operation_order") == "any":
        return [standard(subject, "post-norm"), standard(subject, "pre-norm")]
    return [standard(subject)]


# -- cases of one rule each, of either operation --------------------------------------------------------------


def other_orders(subject: Subject) -> Iterator[Case]:
    for order in free_orders(
        subject,
        "ffn norm self norm",
        "norm ffn norm self",
        "self norm self norm ffn",
        "cross norm self norm ffn norm",
        "self norm ffn norm cross norm",
        "cross self norm cross",
    ):
        yield layer_case(subject, order)


def post_norm_orders(subject: Subject) -> Iterator[Case]:
    yield layer_case(subject, standard(subject, "post-norm"))
    if subject.variant("operation_order") == "any":
        for order in free_orders(subject, "ffn norm self norm", "cross norm self norm"):
            yield layer_case(subject, order)


def pre_norm_orders(subject: Subject) -> Iterator[Case]:
    yield layer_case(subject, standard(subject, "pre-norm"))
    if subject.variant("operation_order") == "any":
        for order in free_orders(subject, "norm self norm self", "norm cross norm self"):
            yield layer_case(subject, order)


def network_before_another(subject: Subject) -> Iterator[Case]:
    orders = ("norm ffn norm self", "norm ffn norm ffn", "norm ffn norm cross", "norm ffn cross norm ffn")
    for order in free_orders(subject, *orders):
        yield layer_case(subject, order)


def misleading_orders(subject: Subject) -> Iterator[Case]:
    """Post-norm without a norm at the end, pre-norm with a sublayer that has none."""
    for order in free_orders(subject, "self norm ffn", "norm self ffn", "cross norm ffn", "norm cross ffn"):
        yield layer_case(subject, order)


def few_norms(subject: Subject) -> Iterator[Case]:
    for order in free_orders(
        subject, "self ffn", "self norm ffn", "norm ffn", "cross ffn", "self cross norm", "norm cross"
    ):
        yield layer_case(subject, order)


def several_of_a_kind(subject: Subject) -> Iterator[Case]:
    orders = ("self norm self ffn norm ffn", "cross norm self norm cross ffn norm ffn")
    for order in and_free_orders(subject, *orders):
        yield layer_case(subject, order)


def current_streams(subject: Subject) -> Iterator[Case]:
    for order in and_free_orders(subject, "norm self norm self", "ffn self", "norm cross norm self", "ffn cross self"):
        yield layer_case(subject, order)


def with_positions(subject: Subject) -> Iterator[Case]:
    """Positions three times as large as what they are added to."""
    for order in and_free_orders(subject, "self norm self ffn", "norm cross self norm cross ffn"):
        yield enlarged(layer_case(subject, order, positions=True), ("query_pos", "key_pos"), 3)


def enlarged(case: Case, names: tuple[str, ...], factor: float) -> Case:
    return case.having(**{name: case[name] * factor for name in names if name in case.tensors})


def without_some_positions(subject: Subject) -> Iterator[Case]:
    case = layer_case(subject, standard(subject), positions=True)
    yield case.having(query_pos=None)
    if subject.operation == "decoder_layer":
        yield case.having(key_pos=None)
        yield case.having(query_pos=None, key_pos=None)


def with_query_padding(subject: Subject) -> Iterator[Case]:
    """With as many keys as queries too, so that one mask could be taken for the other."""
    for order in and_free_orders(subject, "self norm self ffn", "norm cross self norm cross ffn"):
        yield layer_case(subject, order, padding=True).having(key_padding_mask=None)
    if subject.operation == "decoder_layer":
        yield _as_many(subject, padding=True).having(key_padding_mask=None)


def with_key_padding(subject: Subject) -> Iterator[Case]:
    for order in and_free_orders(subject, "norm cross self norm cross ffn"):
        yield layer_case(subject, order, padding=True).having(query_key_padding_mask=None)
    yield _as_many(subject, padding=True).having(query_key_padding_mask=None)
    yield _as_many(subject, padding=True)


def with_query_mask(subject: Subject) -> Iterator[Case]:
    """With as many keys as queries too, so that one mask could be taken for the other."""
    for order in and_free_orders(subject, "self norm self ffn", "norm cross self norm self ffn"):
        yield layer_case(subject, order, masks=True).having(cross_attn_mask=None)
    if subject.operation == "decoder_layer":
        yield _as_many(subject, masks=True).having(cross_attn_mask=None)


def with_key_mask(subject: Subject) -> Iterator[Case]:
    for order in and_free_orders(subject, "norm cross self norm cross ffn"):
        yield layer_case(subject, order, masks=True).having(attn_mask=None)
    yield _as_many(subject, masks=True).having(attn_mask=None)
    yield _as_many(subject, masks=True)


def _as_many(subject: Subject, *, padding: bool = False, masks: bool = False) -> Case:
    return layer_case(subject, standard(subject), padding=padding, masks=masks, queries=6, keys=6)


def small_streams(subject: Subject) -> Iterator[Case]:
    """Streams whose variance is about layer_norm_eps, into which every sublayer writes as little."""
    for eps, scale in ((1e-5, 5e-3), (1e-2, 0.15)):
        case = layer_case(subject, standard(subject), note=f"variance about {eps}", layer_norm_eps=eps)
        small = {name.replace(".", "__"): parameters_of(case)[name] * scale for name in outgoing(case)}
        yield with_parameters(case, **small).having(query=case["query"] * scale)


def ordinary_streams(subject: Subject) -> Iterator[Case]:
    """Tokens far from zero mean, whose norms have weights and biases of their own."""
    case = layer_case(subject, standard(subject))
    yield case.having(query=case["query"] + 2)


def both_activations(subject: Subject) -> Iterator[Case]:
    for activation in ("relu", "gelu"):
        yield layer_case(subject, standard(subject), activation=activation, feedforward_dim=17)


def outgoing(case: Case) -> list[str]:
    """The parameters by which sublayers write into the stream: those of the last linear layer of each."""
    ends = ("out_proj.weight", "out_proj.bias", "layers.1.weight", "layers.1.bias")
    return [name for name in parameters_of(case) if name.endswith(ends)]


def smooth_layers(subject: Subject) -> Iterator[Case]:
    """Hidden channels away from the kink of the ReLU, where a rounding error would change gradients."""
    for number, order in enumerate(representative_orders(subject)):
        given = {"positions": True, "padding": True, "masks": number == 0}
        yield layer_case(subject, order, note="gradients, GELU", activation="gelu", **given).laid_out(LAYOUTS[number])
        case = layer_case(subject, order, note="gradients, ReLU", positions=True)
        name = "ffns.0.layers.0.0.bias"
        far = 6 * (2 * (torch.arange(len(parameters_of(case)[name])) % 2) - 1)
        yield with_parameters(case, **{name.replace(".", "__"): far}).laid_out(LAYOUTS[2 + number])


# -- drawn cases ----------------------------------------------------------------------------------------------


def complete(subject: Subject) -> Iterator[Case]:
    """Every position and mask given."""
    for order in representative_orders(subject):
        yield layer_case(subject, order, note="everything given", positions=True, padding=True, masks=True)


@composite
def _legal_orders(draw: st.DrawFn, cross: bool) -> Order:
    kinds = ("self", "ffn", "cross") if cross else ("self", "ffn")
    sublayers = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4))
    if cross and "cross" not in sublayers:
        sublayers.insert(draw(st.integers(0, len(sublayers))), "cross")
    pre = draw(st.booleans())
    order: list[str] = []
    for number, sublayer in enumerate(sublayers):
        with_norm = draw(st.integers(0, 3)) > 0 or (pre and number == 0)
        order += ["norm", sublayer] if pre and with_norm else [sublayer, "norm"] if with_norm else [sublayer]
    return _parsed(" ".join(order))


def drawn_layers(subject: Subject) -> st.SearchStrategy[Case]:
    """Calls of layers of every structure that the target has."""
    cross = subject.operation == "decoder_layer"
    free = subject.variant("operation_order") == "any"

    @composite
    def draw_case(draw: st.DrawFn) -> Case:
        heads = draw(st.integers(1, 3))
        return layer_case(
            subject,
            draw(_legal_orders(cross)) if free else standard(subject),
            draw(SEEDS),
            positions=draw(st.booleans()),
            padding=draw(st.booleans()),
            masks=draw(st.booleans()),
            batch=draw(st.integers(1, 3)),
            queries=(queries := draw(st.integers(1, 6))),
            keys=queries + draw(st.integers(1, 3)),
            embed_dim=heads * draw(st.integers(2, 6)),
            num_heads=heads,
            feedforward_dim=draw(st.integers(1, 16)),
            activation=draw(st.sampled_from(("relu", "gelu"))),
        ).laid_out(draw(ANY_LAYOUT))

    return draw_case()
