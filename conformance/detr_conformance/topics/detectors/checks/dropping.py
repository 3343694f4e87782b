"""Dropout of whole models: what each sublayer of the decoder, and each of the encoder, adds for a token.

What the encoder drops is read off the first stage, which predicts from the memory itself; in DETR off one query that
looks at a single cell, through dropouts of the decoder: it sees the cell only if none of them strikes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from detr_conformance.harness.block_case import parameters_of, settings_of, with_parameters
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.detectors.cases.models import MARGIN, forms, model_case, selection_margin
from detr_conformance.topics.queries.checks.dropping import (
    Site,
    adding,
    drops_what_it_adds,
    law,
    many_times,
    named,
    obeys,
    outcomes_of,
    queries_of,
)

RATE = 0.4
CELL = (32, 32)
CELLS = 200  # images of one cell
SEEDS = 40
ENCODER, DECODER = "transformer.encoder.layers", "transformer.decoder.layers"
READER = f"{DECODER}.0.attentions.1.out_proj.weight"
ONE_CELL = {"num_queries": 1, "num_encoder_layers": 2, "num_decoder_layers": 1, "dropout": RATE}
ONE_LEVEL = {"num_levels": 1, "backbone_stages": (4,)}


def decoder_image(subject: Subject) -> Iterator[Case]:
    """One small image, of which every query is a token by itself; no sublayer of the encoder adds anything."""
    learned = {name: form for name, form in forms(subject).items() if not form.get("two_stage")}
    name, settings = list((learned or forms(subject)).items())[-1]  # a form without selection, if there is one
    sizes = {"dropout": RATE, "num_decoder_layers": 2, "num_encoder_layers": 1}
    for seed in range(SEEDS):
        note = f"{name}, dropping in the decoder"
        case = model_case(subject, note, seed, size=CELL, extents=(CELL,), again=False, **{**settings, **sizes})
        if selection_margin(subject.operation, adding(case, Site(f"{DECODER}.0.ffns.0", twice=True))) > MARGIN / 4:
            yield case
            return
    require(False, f"{SEEDS} seeds without a margin between selected cells")


def drops_in_the_decoder(subject: Subject, case: Case) -> None:
    """DETR's self-attention too; that of Deformable DETR and DINO may drop its weights, its result or both."""
    among_queries = ("attentions.0",) if subject.operation == "detr" else ()
    for layer in range(settings_of(case)["num_decoder_layers"]):
        for sublayer in (*among_queries, "attentions.1", "ffns.0"):
            site = Site(f"{DECODER}.{layer}.{sublayer}", twice=sublayer == "ffns.0")
            drops_what_it_adds(subject, case, site, RATE)


def encoder_image(subject: Subject) -> Iterator[Case]:
    """One image of one cell, and one query."""
    name, settings = list(forms(subject).items())[-1]
    sizes = ONE_CELL if subject.operation == "detr" else {**ONE_CELL, **ONE_LEVEL}
    note = f"{name}, dropping in the encoder"
    yield model_case(subject, note, size=CELL, extents=(CELL,), again=False, **{**settings, **sizes})


def drops_in_the_encoder(subject: Subject, case: Case) -> None:
    first_stage = any(name.startswith("enc_") for name in case.shapes or ())
    for layer in range(settings_of(case)["num_encoder_layers"]):
        for sublayer in ("attentions.0", "ffns.0"):
            site = Site(f"{ENCODER}.{layer}.{sublayer}", twice=sublayer == "ffns.0")
            tokens = first_stage_of if first_stage else queries_of
            cases = list(_read_by_the_first_stage(case, site) if first_stage else _read_by_a_query(case, site))
            called = adding(case, site) if first_stage else adding(_reading(case, 1.0), site, spared=[READER])
            many = many_times(subject.operation, called, CELLS)
            obeys(subject, many, outcomes_of(subject, cases, tokens, CELLS), tokens)


def first_stage_of(found: Mapping[str, Tensor]) -> Tensor:
    """(batch, cell, numbers)"""
    return torch.cat([tensor for name, tensor in found.items() if name.startswith("enc_")], -1)


Read = Iterator[tuple[Case, str, float]]


def _read_by_the_first_stage(case: Case, site: Site) -> Read:
    for factors, share in law(RATE, site.twice):
        yield adding(case, site, factors), named(factors), share


def _read_by_a_query(case: Case, site: Site) -> Read:
    """The query sees the cell through a weight and a channel, which are both kept or not."""
    seen = (1 - RATE) ** 2
    yield adding(_reading(case, 0.0), site, spared=[READER]), "not seen", 1 - seen
    for factors, share in law(RATE, site.twice):
        yield adding(_reading(case, 1 / seen), site, factors, spared=[READER]), f"seen, {named(factors)}", seen * share


def _reading(case: Case, factor: float) -> Case:
    """One head of the first cross-attention writes into one channel."""
    weight = torch.zeros_like(parameters_of(case)[READER])
    head = weight.shape[1] // settings_of(case)["num_heads"]
    weight[2, :head] = factor * parameters_of(case)[READER][2, :head]
    return with_parameters(case, **{READER.replace(".", "__"): weight})
