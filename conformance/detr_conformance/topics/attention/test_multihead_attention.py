"""Multi-head attention: formula, masks, frame, numbers. Clauses: spec chapter 4."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from detr_conformance.harness.block import (
    agrees,
    expectations,
    forward,
    fresh,
    gradients_agree,
    parameters_by_name,
    raises,
    run,
    while_training,
)
from detr_conformance.harness.block_case import PARAMETER, parameters_of, settings_of, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect, require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.attention.cases.multihead_attention import (
    Attention,
    attention_case,
    drawn_attention,
    forbidden_pairs,
    projected,
    showing_weights,
)

OPERATION = "multihead_attention"

ALL = Attention()
ITSELF = Attention(given=("query", "query_pos"), queries=6, heads=2, channels=5)
SQUARE = Attention(queries=6, keys=6)  # a cross-attention with as many keys as queries


# -- the formula ----------------------------------------------------------------------------------------------


@covers("MHA-1", cases=lambda subject: [attention_case(subject, s, note="projections") for s in (ALL, ITSELF)])
def test_three_projections(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def unlike_sizes(subject: Subject) -> Iterator[Case]:
    for heads, channels in ((3, 4), (2, 5), (4, 2), (1, 6)):
        yield attention_case(subject, replace(ALL, heads=heads, channels=channels), note="heads and channels")
    yield attention_case(subject, replace(ALL, queries=3, heads=3), note="as many queries as heads")


@covers("MHA-2", cases=unlike_sizes)
def test_heads(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def head_sizes(subject: Subject) -> Iterator[Case]:
    """Scores that differ enough to tell one scale from another; with a mask, which is not scaled."""
    for channels in (1, 3, 16):
        s = replace(ALL, heads=2, channels=channels, mask="additive")
        case = attention_case(subject, s, note=f"heads of {channels} channels")
        yield case.having(query=case["query"] * 2)


@covers("MHA-3", cases=head_sizes)
def test_scale(subject: Subject, case: Case) -> None:
    agrees(subject, case)


EXP_OVERFLOWS = {"float64": 800.0, "float32": 200.0, "float16": 200.0, "bfloat16": 120.0}


def large_scores(subject: Subject) -> Iterator[Case]:
    """Scores of one size shifted up and down, by a bias of the keys to which queries are nearly parallel; then scores
    far apart."""
    for sign in (1, -1):
        case = attention_case(subject, ALL, note="large scores")
        weight, bias = (parameters_of(case)[f"in_proj_{kind}"].clone() for kind in ("weight", "bias"))
        embed = ALL.embed
        weight[:embed] /= 4
        bias[:embed] = 2
        bias[embed : 2 * embed] = sign * EXP_OVERFLOWS[subject.dtype] / (2 * math.sqrt(ALL.channels))
        yield with_parameters(case, in_proj_weight=weight, in_proj_bias=bias)
    case = attention_case(subject, ALL, note="scores far apart")
    yield case.having(query=case["query"] * 40)


@covers("MHA-4", cases=large_scores)
def test_softmax_of_large_scores(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MHA-4", cases=lambda subject: [showing_weights(subject, replace(ALL, batch=3, queries=4), "weights")])
def test_weights_of_a_query_sum_to_one_over_the_keys(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def lengths(subject: Subject) -> Iterator[Case]:
    """One, and about as many as blocks of kernels hold."""
    for queries, keys in ((1, 1), (4, 1), (1, 17), (33, 5), (16, 31), (17, 66), (7, 130)):
        s = replace(ALL, queries=queries, keys=keys, heads=2, channels=3, padded=keys in (17, 66))
        yield attention_case(subject, s, note=f"{queries} queries, {keys} keys")


@covers("MHA-5", cases=lengths)
def test_any_lengths(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def permutable(subject: Subject) -> Iterator[Case]:
    yield attention_case(subject, replace(SQUARE, mask="boolean", padded=True), note="as many keys as queries")
    yield attention_case(subject, replace(ALL, mask="additive"), note="other keys than queries")
    yield attention_case(subject, replace(SQUARE, batch=1), note="one image, as many keys as queries")


@covers("MHA-6", cases=permutable)
def test_order_of_keys(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, backward=False)["output"]
    order = torch.arange(case["key"].shape[1]).roll(2).flip(0)
    axes = {"key": 1, "value": 1, "key_pos": 1, "key_padding_mask": 1, "attn_mask": -1}
    moved = {name: case[name].index_select(axis, order) for name, axis in axes.items() if name in case.tensors}
    subject.compare("output, keys permuted", forward(subject, case.having(**moved)), right.expected, right.limit)


@covers("MHA-6", cases=permutable)
def test_order_of_queries(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, backward=False)["output"]
    order = torch.arange(case["query"].shape[1]).roll(2).flip(0)
    axes = {"query": 1, "identity": 1, "query_pos": 1, "attn_mask": -2}
    moved = {name: case[name].index_select(axis, order) for name, axis in axes.items() if name in case.tensors}
    expected, limit = right.expected[:, order], right.limit[:, order]
    subject.compare("output, queries permuted", forward(subject, case.having(**moved)), expected, limit)


def without_keys(subject: Subject) -> Iterator[Case]:
    for mask in ("none", "key_padding_mask", "attn_mask"):
        case = attention_case(subject, ALL, note=f"no keys, {mask}")
        masks = {
            "key_padding_mask": torch.zeros(ALL.batch, 0, dtype=torch.bool),
            "attn_mask": torch.zeros(ALL.queries, 0, dtype=torch.bool),
        }
        none = {name: case[name][:, :0] for name in ("key", "value", "key_pos")}
        yield case.having(**none, **{name: tensor for name, tensor in masks.items() if name == mask})


@covers("MHA-7", cases=without_keys)
def test_no_keys(subject: Subject, case: Case) -> None:
    agrees(subject, case)


# -- masks ----------------------------------------------------------------------------------------------------


def with_mask(subject: Subject, mask: str, padded: bool = False) -> Iterator[Case]:
    """With as many keys as queries too, where the axes of a mask can be exchanged, in self-attention, and for more
    heads than images and fewer."""
    sizes = [ALL, replace(ALL, batch=3, heads=2), replace(SQUARE, batch=2, heads=2), ITSELF]
    for s in sizes:
        yield attention_case(subject, replace(s, mask=mask, padded=padded), note=f"{mask} mask")


def all_false(subject: Subject, case: Case, mask: str) -> None:
    """A mask that forbids nothing is no mask."""
    nothing = case.having(**{mask: torch.zeros_like(case[mask])})
    right = expectations(subject, case.having(**{mask: None}), backward=False)["output"]
    subject.compare("output", forward(subject, nothing), right.expected, right.limit)


@covers("MHA-8", cases=lambda subject: with_mask(subject, "boolean"))
def test_boolean_mask(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MHA-8", cases=lambda subject: list(with_mask(subject, "boolean"))[-2:])
def test_a_mask_that_is_false_is_no_mask(subject: Subject, case: Case) -> None:
    all_false(subject, case, "attn_mask")


@covers("MHA-9", cases=lambda subject: with_mask(subject, "boolean by head"))
def test_mask_for_each_head(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def additive(subject: Subject) -> Iterator[Case]:
    for mask in ("additive", "additive by head"):
        case = attention_case(subject, replace(ALL, mask=mask), note=mask)
        yield case
        yield case.having(attn_mask=case["attn_mask"].clamp(min=-3))


@covers("MHA-10", cases=additive)
def test_additive_mask(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def with_padding(subject: Subject) -> Iterator[Case]:
    yield from with_mask(subject, "none", padded=True)
    case = attention_case(subject, replace(ALL, batch=3), note="padding at the end")
    short = torch.arange(ALL.keys).expand(3, ALL.keys) >= torch.tensor([[6], [2], [7]])
    yield case.having(key_padding_mask=short)


@covers("MHA-11", cases=with_padding)
def test_padded_keys(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MHA-11", cases=lambda subject: list(with_padding(subject))[-2:])
def test_padding_that_is_false_is_no_padding(subject: Subject, case: Case) -> None:
    all_false(subject, case, "key_padding_mask")


def both_masks(subject: Subject) -> Iterator[Case]:
    for mask in ("boolean", "boolean by head", "additive", "additive by head"):
        s = replace(ALL if mask.startswith("boolean") else SQUARE, mask=mask, padded=True)
        yield attention_case(subject, s, note=f"padding and {mask} mask")


@covers("MHA-12", cases=both_masks)
def test_both_masks(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def forbidden_keys(case: Case) -> Tensor:
    """(B, K) bool: keys that no query of the image may attend to in any head."""
    return forbidden_pairs(case).all((1, 2))


def columns_forbidden(subject: Subject) -> Iterator[Case]:
    """The same keys, forbidden to everybody by each kind of mask."""
    yield attention_case(subject, replace(ALL, padded=True), note="padded keys")
    column = torch.arange(ALL.keys) % 3 == 1
    for mask in ("boolean", "boolean by head", "additive"):
        case = attention_case(subject, replace(ALL, mask=mask, padded=mask == "additive"), note=f"{mask}, keys 1 and 4")
        filler = True if case["attn_mask"].dtype == torch.bool else -torch.inf
        yield case.having(attn_mask=case["attn_mask"].masked_fill(column, filler))


def tempting(subject: Subject) -> Iterator[Case]:
    """Forbidden keys with scores far above all others, and with large values."""
    score, value = (1.5e4, 1e3) if subject.dtype == "float16" else (1e12, 1e12)
    for case in columns_forbidden(subject):
        bare = case.having(query_pos=None, key_pos=torch.zeros_like(case["key"]))
        forbidden = forbidden_keys(bare)[..., None]
        scores = projected(bare, 0, "query") @ projected(bare, 1, "key").transpose(1, 2)
        factor = score / scores.abs().max()
        dtype = bare["key"].dtype
        yield bare.having(
            key=torch.where(forbidden, bare["key"].double() * factor, bare["key"].double()).to(dtype),
            value=torch.where(forbidden, bare["value"].double() * value, bare["value"].double()).to(dtype),
        )


@covers("MHA-13", cases=tempting)
def test_forbidden_is_zero(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def nothing_allowed(subject: Subject) -> Iterator[Case]:
    """Calls with queries to which every key is forbidden, in all heads or in one, by each kind of mask."""
    case = attention_case(subject, replace(ALL, mask="boolean by head"), note="a query of one image")
    mask = case["attn_mask"].clone()
    mask[ALL.heads :, 2] = True
    yield case.having(attn_mask=mask)

    case = attention_case(subject, replace(ALL, mask="boolean by head"), note="a query of one head")
    mask = case["attn_mask"].clone()
    mask[1, 3] = True
    yield case.having(attn_mask=mask)

    case = attention_case(subject, replace(ALL, padded=True), note="an image of padding")
    mask = case["key_padding_mask"].clone()
    mask[0] = True
    yield case.having(key_padding_mask=mask)

    case = attention_case(subject, replace(ITSELF, given=("query",), padded=True), note="an image of padding, itself")
    mask = case["key_padding_mask"].clone()
    mask[1] = True
    yield case.having(key_padding_mask=mask)

    case = attention_case(subject, replace(ALL, mask="additive"), note="-inf for one query")
    mask = case["attn_mask"].clone()
    mask[4] = -torch.inf
    yield case.having(attn_mask=mask)

    case = attention_case(subject, replace(ALL, mask="boolean", padded=True), note="both masks together")
    mask = case["attn_mask"].clone()
    mask[0] = ~case["key_padding_mask"][1]
    yield case.having(attn_mask=mask)


def without_keys_in_some_head(case: Case) -> Tensor:
    """(B, Q) bool."""
    dead = forbidden_pairs(case).all(-1).any(1)
    require(dead.any() and not dead.all(), "some queries may attend to nothing, others to something")
    return dead


@covers("MHA-14", cases=nothing_allowed)
def test_a_query_without_keys_disturbs_nobody(subject: Subject, case: Case) -> None:
    alive = ~without_keys_in_some_head(case)
    right = expectations(subject, case, backward=subject.backward)["output"]
    output = forward(subject, case)
    subject.compare("output of the other queries", output.cpu()[alive], right.expected[alive], right.limit[alive])


@covers("MHA-15", cases=nothing_allowed)
def test_a_query_without_keys_gets_nothing(subject: Subject, case: Case) -> None:
    if subject.backward:
        gradients_agree(subject, case)
    right = expectations(subject, case, backward=subject.backward)["output"]
    subject.compare("output", forward(subject, case), right.expected, right.limit)
    with torch.no_grad():  # where some take another path
        subject.compare("output without gradients", forward(subject, case), right.expected, right.limit)


@covers("MHA-16", cases=columns_forbidden, feature="backward")
def test_no_gradient_where_attention_is_forbidden(subject: Subject, case: Case) -> None:
    forbidden = forbidden_keys(case)
    require(forbidden.any() and not forbidden.all(), "some keys are forbidden to all queries, some are not")
    gradients = run(subject, case).gradients
    for name in ("key", "value", "key_pos"):
        gradient = subject.gradient(name, gradients).cpu()
        subject.compare_exactly(
            f"grad_{name} of forbidden keys", gradient[forbidden], torch.zeros_like(gradient[forbidden])
        )
        reached = gradient[~forbidden].any(-1)
        expect(bool(reached.all()), f"{int((~reached).sum())} allowed keys got no gradient", where=f"grad_{name}")


@covers("MHA-17", cases=with_padding)
def test_padding_may_hold_anything(subject: Subject, case: Case) -> None:
    if "key" not in case.tensors:
        case = case.having(key=case["query"].clone(), key_pos=case["query_pos"].clone())
    right = expectations(subject, case, backward=False)["output"]
    padded = case["key_padding_mask"][..., None]
    for poison in (torch.nan, torch.inf):
        spoilt = {name: case[name].masked_fill(padded, poison) for name in ("key", "value") if name in case.tensors}
        subject.compare("output", forward(subject, case.having(**spoilt)), right.expected, right.limit)
    spoilt_position = case.having(key_pos=case["key_pos"].masked_fill(padded, torch.nan))
    subject.compare("output", forward(subject, spoilt_position), right.expected, right.limit)


# -- the frame ------------------------------------------------------------------------------------------------


def large_positions(subject: Subject) -> Iterator[Case]:
    for s in (ALL, SQUARE, ITSELF, replace(ALL, given=("query", "key", "query_pos", "key_pos"))):
        case = attention_case(subject, s, note="large positions")
        yield case.having(**{name: case[name] * 2 for name in ("query_pos", "key_pos") if name in case.tensors})


@covers("MHA-18", cases=large_positions)
def test_positions(subject: Subject, case: Case) -> None:
    agrees(subject, case)


DEFAULTS = (
    ("query",),
    ("query", "query_pos"),
    ("query", "key", "query_pos", "key_pos"),
    ("query", "key", "value", "query_pos", "key_pos"),
    ("query", "value", "query_pos"),
    ("query", "identity", "query_pos"),
    ("query", "key", "identity", "query_pos", "key_pos"),
)


def with_defaults(subject: Subject) -> Iterator[Case]:
    for given in DEFAULTS:
        yield attention_case(subject, replace(ALL, given=given), note="defaults")
    given = ("query", "key", "query_pos", "key_pos")
    yield attention_case(subject, replace(SQUARE, given=given), note="defaults, as many keys as queries")


@covers("MHA-19", cases=with_defaults)
def test_defaults(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def key_positions(subject: Subject) -> Iterator[Case]:
    contents = ("query", "key", "value")
    for s, given in (
        (SQUARE, (*contents, "query_pos")),
        (ALL, (*contents, "query_pos")),
        (replace(ALL, keys=1), (*contents, "query_pos")),
        (SQUARE, (*contents, "key_pos")),
        (SQUARE, (*contents, "query_pos", "key_pos")),
        (ALL, ("query", "query_pos")),
        (ALL, ("query", "query_pos", "key_pos")),
        (ALL, ("query", "key_pos")),
    ):
        yield attention_case(subject, replace(s, given=given), note=f"{' '.join(given)}; {s.length('key')} keys")


@covers("MHA-20", cases=key_positions)
def test_default_of_the_keys_position(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MHA-21", cases=lambda subject: [attention_case(subject, s, note="identity") for s in (ALL, SQUARE)])
def test_identity(subject: Subject, case: Case) -> None:
    agrees(subject, case.having(identity=case["identity"] * 10))
    agrees(subject, case.having(identity=torch.zeros_like(case["identity"])))


def check_dropped(subject: Subject, dropped: Tensor, probability: float, axes: tuple[str, ...]) -> None:
    """The share of what was dropped, and that neighbours along each axis are dropped independently."""

    def near(what: str, share: float, expected: float) -> None:
        slack = 8 * math.sqrt(expected * (1 - expected) / dropped.numel())
        expect(
            abs(share - expected) < slack,
            f"{what}: {share:.3f}, expected {expected:.3f} within {slack:.3f}",
            where="output",
            expected=f"{expected:.3f}",
            got=f"{share:.3f}",
            limit=f"{slack:.3f}",
        )

    near("share of dropped elements", dropped.double().mean().item(), probability)
    for axis, name in enumerate(axes):
        alike = (dropped == dropped.roll(1, axis)).double().mean().item()
        near(f"neighbours along {name} that share their fate", alike, probability**2 + (1 - probability) ** 2)


def check_kept(subject: Subject, case: Case, output: Tensor, probability: float) -> Tensor:
    """Elements that are not zero are the right ones divided by 1 - p; returns which are zero."""
    right = expectations(subject, case, backward=False)["output"]
    dropped, scale = output == 0, 1 / (1 - probability)
    slack = scale * (1.01 * right.limit + (output.element_size() == 2) * 2**-7 * right.expected.abs())
    subject.compare("kept elements while training", output[~dropped], scale * right.expected[~dropped], slack[~dropped])
    return dropped


def dropping_weights(subject: Subject) -> Iterator[Case]:
    for probability in (0.1, 0.5):
        s = Attention(queries=100, keys=6, heads=2, attn_drop=probability)
        yield showing_weights(subject, s, f"a share {probability} of the weights dropped")


@covers("MHA-22", cases=dropping_weights)
def test_dropout_of_weights(subject: Subject, case: Case) -> None:
    agrees(subject, case)
    probability = settings_of(case)["attn_drop"]
    dropped = check_kept(subject, case, while_training(subject, case), probability)
    check_dropped(subject, dropped.unflatten(-1, (2, 6)), probability, ("image", "query", "head", "key"))


def dropping_results(subject: Subject) -> Iterator[Case]:
    for probability in (0.1, 0.5):
        s = Attention(queries=60, keys=5, heads=2, channels=6, proj_drop=probability)
        yield attention_case(subject, s, note=f"a share {probability} of the result dropped")


@covers("MHA-23", cases=dropping_results)
def test_dropout_of_the_result(subject: Subject, case: Case) -> None:
    agrees(subject, case)
    probability = settings_of(case)["proj_drop"]
    bare = case.having(identity=torch.zeros_like(case["identity"]))
    dropped = check_kept(subject, bare, while_training(subject, bare), probability)
    check_dropped(subject, dropped, probability, ("image", "query", "channel"))
    framed = while_training(subject, case)
    alone = (framed == case["identity"]).double().mean().item()
    expect(
        abs(alone - probability) < 8 * math.sqrt(probability * (1 - probability) / framed.numel()) + 0.01,
        f"identity alone came back for {alone:.3f} of the elements, expected {probability}: identity was dropped too",
        where="output",
    )


# -- numbers --------------------------------------------------------------------------------------------------


@covers("MHA-24", cases=drawn_attention, share=0.5)
def test_accuracy(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


AT_SCALE = Attention(queries=30, keys=150, heads=4, channels=16, mask="additive by head", padded=True)


@covers("MHA-24", cases=lambda subject: [attention_case(subject, AT_SCALE, note="many keys")])
def test_accuracy_at_scale(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


def differentiated(subject: Subject) -> Iterator[Case]:
    kinds = (
        replace(ALL, mask="boolean by head", padded=True),
        replace(ALL, batch=3, heads=2, mask="additive"),
        replace(ITSELF, padded=True),
        replace(SQUARE, given=("query", "key", "query_pos")),
    )
    for s in kinds:
        yield attention_case(subject, s, note="gradients")


@covers("MHA-25", cases=differentiated, feature="backward")
def test_gradient_accuracy(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case, precise=True)


def freshly_initialised(subject: Subject) -> Iterator[Case]:
    for heads, channels in ((4, 12), (3, 20)):
        yield attention_case(subject, replace(ALL, heads=heads, channels=channels), note="own parameters")


@covers("MHA-26", cases=freshly_initialised, once=True)
def test_initialisation(subject: Subject, case: Case) -> None:
    module = fresh(subject, case)
    found = {
        name: torch.cat([part.detach().cpu().double() for part in parts])
        for name, parts in parameters_by_name(subject.operation, module, case).items()
    }
    for name in ("in_proj_bias", "out_proj.bias"):
        subject.compare_exactly(name, found[name], torch.zeros_like(case[PARAMETER + name]).double())
    embed = settings_of(case)["embed_dim"]
    slack = max(1e-3, torch.finfo(subject.torch_dtype).eps)
    for name, bound in (("in_proj_weight", math.sqrt(6 / (4 * embed))), ("out_proj.weight", embed**-0.5)):
        for part, weight in enumerate(found[name].chunk(len(found[name]) // embed)):
            largest, spread = weight.abs().max().item(), weight.std().item()
            expect(
                0.95 * bound < largest <= bound * (1 + slack) and 0.95 < spread / (bound / math.sqrt(3)) < 1.05,
                f"{name}, part {part}: largest {largest:.4f}, deviation {spread:.4f}, "
                f"not those of a uniform distribution in +-{bound:.4f}",
                where=name,
                expected=f"uniform in +-{bound:.4f}",
                got=f"largest {largest:.4f}, deviation {spread:.4f}",
            )


def contradicting(subject: Subject) -> Iterator[Case]:
    case = attention_case(subject, ALL)
    q, k, b = ALL.queries, ALL.keys, ALL.batch

    def flags(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.bool)

    for note, changes in {
        "the key has one channel less": {"key": case["key"][..., 1:]},
        "the value has one row less": {"value": case["value"][:, 1:]},
        "the position of the key has one row": {"key_pos": case["key_pos"][:, :1]},
        "the position of the query has the length of the key": {"query_pos": case["key_pos"]},
        "the identity has one row": {"identity": case["identity"][:, :1]},
        "the mask is (key, query)": {"attn_mask": flags(k, q)},
        "the mask has one row": {"attn_mask": flags(1, k)},
        "the mask has a slice for each image": {"attn_mask": flags(b, q, k)},
        "the padding mask has the length of the query": {"key_padding_mask": flags(b, q)},
        "the padding mask is of one image": {"key_padding_mask": flags(1, k)},
    }.items():
        yield replace(case.having(**changes), note=note)


@covers("MHA-27", cases=contradicting, once=True)
def test_wrong_arguments(subject: Subject, case: Case) -> None:
    raises(subject, case, case.note)
