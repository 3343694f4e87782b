"""Properties of transformer layers that take more than one comparison; for both kinds of layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from detr_conformance.harness.block import expectations, forward, while_training
from detr_conformance.harness.block_case import (
    inputs_of,
    parameters_of,
    reference_callable,
    settings_of,
    with_parameters,
)
from detr_conformance.harness.case import Case
from detr_conformance.harness.dropping import Outcome, each_by_itself, is_one_of
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.transformer.cases import layer_case, outgoing, standard

IMAGES = 200
TOKENS = 3
RATES = ("attn_drop", "proj_drop", "ffn_drop")


def padded_rows_agree(subject: Subject, case: Case) -> None:
    """The rows of padded queries alone, whatever they hold."""
    case = case.having(query=case["query"] * 2)
    rows = case["query_key_padding_mask"]
    right = expectations(subject, case, backward=False)["output"]
    output = forward(subject, case).cpu()
    subject.compare("output at padded queries", output[rows], right.expected[rows], right.limit[rows])


def dropping(subject: Subject) -> Iterator[Case]:
    """One rate after the other, and all at once. Where weights are dropped each image is one token, which attends to
    one key, so that it meets each dropout once; elsewhere it has several, which do not meet the same fate."""
    yield _few_tokens(subject, 1, attn_drop=0.4)
    yield _few_tokens(subject, TOKENS, proj_drop=0.4)
    yield _few_tokens(subject, TOKENS, ffn_drop=0.4)
    yield _few_tokens(subject, 1, attn_drop=0.5, proj_drop=0.5, ffn_drop=0.5)


def _few_tokens(subject: Subject, tokens: int, **settings: Any) -> Case:
    settings |= {"embed_dim": 6, "num_heads": 2, "feedforward_dim": 5}
    note = f"{tokens} tokens an image" if tokens > 1 else "one token an image"
    return layer_case(subject, standard(subject), note=note, batch=IMAGES, queries=tokens, keys=1, **settings)


def drops(subject: Subject, case: Case) -> None:
    """A sublayer at a time writes through one dropout only; what reaches the output is one of a few vectors."""
    rates = {name: settings_of(case)[name] for name in RATES if name in settings_of(case)}
    if len(rates) > 1:
        silent = with_parameters(case, **_zeros(case, *outgoing(case)))
        _check(subject, silent, [({}, "as in evaluation", 1.0)])
        return
    (rate, probability), keep = *rates.items(), 1 - next(iter(rates.values()))
    for prepared, parts in _writers(case, rate):
        if rate == "ffn_drop":
            hidden, last = parts
            _check(subject, prepared, [
                (_zeros(prepared, hidden, last), "dropped at the end", probability),
                (_zeros(prepared, hidden) | _scaled(prepared, 1 / keep, last), "hidden dropped", keep * probability),
                (_scaled(prepared, keep**-2, hidden) | _scaled(prepared, 1 / keep, last), "kept", keep * keep),
            ])  # fmt: skip
        elif rate == "proj_drop":
            _check(subject, prepared, [
                (_zeros(prepared, *parts), "dropped", probability**2),
                (_scaled(prepared, _factors(1 / keep, 0), *parts), "dropped in the second channel", keep * probability),
                (_scaled(prepared, _factors(0, 1 / keep), *parts), "dropped in the first channel", keep * probability),
                (_scaled(prepared, 1 / keep, *parts), "kept", keep**2),
            ])  # fmt: skip
        else:
            _check(subject, prepared, [
                (_zeros(prepared, *parts), "dropped", probability),
                (_scaled(prepared, 1 / keep, *parts), "kept", keep),
            ])  # fmt: skip


def _writers(case: Case, rate: str) -> Iterator[tuple[Case, list[str]]]:
    """For each sublayer with this rate: the case in which only its dropout shows, and the parameters that scale what
    passes through it."""
    parameters = parameters_of(case)
    kind = "ffns" if rate == "ffn_drop" else "attentions"
    for number in sorted({name.split(".")[1] for name in parameters if name.startswith(kind)}):
        own = f"{kind}.{number}."
        changes = _zeros(case, *(name for name in outgoing(case) if not name.startswith(own)))
        if rate == "ffn_drop":  # one hidden channel, and one channel of the output
            names = [f"{own}layers.1.weight", f"{own}layers.1.bias"]
            changes |= _zeros(case, f"{own}layers.0.0.weight")
            changes |= {_as_argument(f"{own}layers.0.0.bias"): _single(parameters[f"{own}layers.0.0.bias"], 0)}
            changes |= {_as_argument(name): _single(parameters[name], 0) for name in names}
        elif rate == "proj_drop":  # two channels of a constant
            names = [f"{own}out_proj.bias"]
            changes |= _zeros(case, f"{own}out_proj.weight")
            bias = _single(parameters[names[0]], 0) - 1.5 * _single(parameters[names[0]], 1)
            changes |= {_as_argument(names[0]): bias}
        else:  # the value of one head
            names = [f"{own}out_proj.weight"]
            weight = parameters[names[0]].clone()
            weight[:, weight.shape[1] // settings_of(case)["num_heads"] :] = 0
            changes |= {_as_argument(names[0]): weight}
        yield with_parameters(case, **changes), names


def _single(like: Tensor, channel: int) -> Tensor:
    """Zero but for one entry, large enough to show."""
    single = torch.zeros_like(like)
    single[(channel,) * like.ndim] = 2
    return single


def _zeros(case: Case, *names: str) -> dict[str, Tensor]:
    return {_as_argument(name): torch.zeros_like(parameters_of(case)[name]) for name in names}


def _factors(first: float, second: float) -> Tensor:
    """Of six channels, of which the first two are not zero."""
    return torch.tensor([first, second, 0, 0, 0, 0])


def _scaled(case: Case, factor: float | Tensor, *names: str) -> dict[str, Tensor]:
    return {_as_argument(name): parameters_of(case)[name] * factor for name in names}


def _as_argument(name: str) -> str:
    return name.replace(".", "__")


def _check(subject: Subject, case: Case, results: list[tuple[dict[str, Tensor], str, float]]) -> None:
    limit = 4 * expectations(subject, case, backward=False)["output"].limit
    inputs = {n: t.double() if t.is_floating_point() else t for n, t in inputs_of(subject.operation, case).items()}
    outcomes = []
    for changes, name, share in results:
        layer = reference_callable(subject.operation, with_parameters(case, **changes), torch.float64)
        outcomes.append(Outcome(name, layer(**inputs).detach(), limit, share))
    matches = is_one_of(while_training(subject, case).double(), outcomes, token_wise=True)
    if matches[0].shape[1] > 1 and len(outcomes) > 1:
        each_by_itself(matches, outcomes)
