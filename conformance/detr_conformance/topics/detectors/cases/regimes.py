"""Cases of whole models beside the usual ones: images without padding, canvases of any sides, sizes, switches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.topics.detectors.cases.models import EXTENTS, SIZES, forms, model_case

Size = tuple[int, int]

# Sides that no stride divides, a map of more than 32 columns, and one of a single row.
CANVASES: tuple[tuple[Size, tuple[Size, ...]], ...] = (
    ((75, 139), ((55, 139), (75, 120))),
    ((48, 560), ((48, 390), (35, 560))),
    ((29, 203), ((29, 180), (20, 203))),
)
# Every size of the configuration is another than usual.
OTHER_SIZES: dict[str, Any] = {
    "num_classes": 3,
    "num_queries": 7,
    "embed_dim": 24,
    "num_heads": 3,
    "feedforward_dim": 20,
    "num_encoder_layers": 1,
    "num_decoder_layers": 2,
    "backbone_blocks": (2, 1, 1, 2),
    "backbone_width": 3,
    "backbone_frozen_stages": 2,
}
OTHER_LEVELS = {"num_points": 3, "neck_groups": 3, "num_levels": 5, "backbone_stages": (1, 2, 3, 4)}
FROZEN = (0, 2, 4)


def whole_images(subject: Subject) -> Iterator[Case]:
    """Each form: one image that fills its canvas, two that do, such a one in front of and behind a padded one."""
    whole = SIZES[subject.operation]
    padded = EXTENTS[whole][0]
    batches = {"one": (whole,), "two": (whole, whole), "the first": (whole, padded), "the second": (padded, whole)}
    for name, settings in forms(subject).items():
        for what, extents in batches.items():
            yield model_case(subject, f"{name}, {what} without padding", extents=extents, again=False, **settings)
    for name, settings in switched(subject).items():
        yield model_case(subject, f"{name}, without padding", extents=(whole,), again=False, **settings)


def canvases(subject: Subject) -> Iterator[Case]:
    """Each canvas, in turn of each form; the first without padding too."""
    every = list(every_form(subject).items())
    for number, (size, extents) in enumerate(CANVASES):
        name, settings = every[number % len(every)]
        note = f"{name}, a canvas of {size[0]} x {size[1]}"
        yield model_case(subject, note, size=size, extents=extents, again=False, **settings)
        if number == 0:
            yield model_case(subject, f"{note}, filled", size=size, extents=(size,), again=False, **settings)


def other_sizes(subject: Subject) -> Iterator[Case]:
    """Every size another one, in each of the usual forms and without a first stage."""
    own: dict[str, Any] = {} if subject.operation == "detr" else OTHER_LEVELS
    for name, settings in every_form(subject).items():
        if name not in ("pure selection", "looking forward once"):
            yield model_case(subject, f"{name}, other sizes", again=False, **{**settings, **OTHER_SIZES, **own})


def frozen_otherwise(subject: Subject) -> Iterator[Case]:
    """The usual forms, of whose backbone nothing, half or all is frozen."""
    for name, settings in forms(subject).items():
        case = model_case(subject, name, **settings)
        for frozen in FROZEN:
            options = case.options | {"backbone_frozen_stages": str(frozen)}
            yield replace(case, note=f"{name}, {frozen} stages frozen", options=options)


def as_published(subject: Subject) -> Iterator[Case]:
    """Six encoder and six decoder layers, in the first form and in the last."""
    every = every_form(subject)
    for name in dict.fromkeys((next(iter(every)), list(every)[-1])):
        six: dict[str, Any] = {"num_encoder_layers": 6, "num_decoder_layers": 6}
        yield model_case(subject, f"{name}, six and six layers", again=False, **every[name], **six)


def every_form(subject: Subject) -> dict[str, dict[str, Any]]:
    """The usual forms, and those that DINO's switches make; as far as the target has them."""
    return {**forms(subject), **switched(subject)}


# What a target that has one value alone calls a variant.
SWITCHES = {"query_selection": "query_selection", "denoising": "denoising", "look_forward_twice": "look_forward"}
SWITCHED: dict[str, dict[str, Any]] = {
    "pure selection": {"query_selection": "pure", "look_forward_twice": False, "denoising": "plain"},
    "static selection": {"query_selection": "static", "denoising": "none"},
    "looking forward once": {"look_forward_twice": False, "denoising": "none"},
}


def switched(subject: Subject) -> dict[str, dict[str, Any]]:
    """DINO with switches turned, as far as the target can turn them; of another model none."""
    if subject.operation != "dino":
        return {}
    own = next(iter(forms(subject).values()))
    found = {}
    for name, switches in SWITCHED.items():
        first, *_ = switches
        if can_turn(subject, first):
            found[name] = own | {switch: value for switch, value in switches.items() if can_turn(subject, switch)}
    return found


def can_turn(subject: Subject, switch: str) -> bool:
    return subject.variant(SWITCHES[switch]) == "any"


def with_switches(subject: Subject, note: str, sizes: Mapping[str, Any] | None = None, **switches: Any) -> Case:
    """A case of the first form with these switches, and with these sizes.

    Raises:
        NotProvided: the target cannot turn one of them.
    """
    stuck = [switch for switch in switches if not can_turn(subject, switch)]
    if stuck:
        raise NotProvided(f"the target cannot turn {', '.join(stuck)}")
    name, own = next(iter(forms(subject).items()))
    return model_case(subject, f"{name}, {note}", again=False, **{**own, **switches, **(sizes or {})})
