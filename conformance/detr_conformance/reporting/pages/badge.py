"""A badge that says whether an implementation conforms: as a picture, and as the JSON that shields.io asks for."""

from __future__ import annotations

import json

from markupsafe import Markup

from detr_conformance.reporting.pages.history import Implementation

LABEL = "detr-spec"
COLOURS = {"pass": ("brightgreen", "#2f8f4e"), "fail": ("red", "#c2352b"), "error": ("lightgrey", "#77808a")}
LETTER = 6.6  # pixels, about, of 11 pixel sans
PAD = 7.0
_BADGE = Markup(
    '<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="20" role="img" aria-label="{1}: {2}">'
    "<title>{1}: {2}</title>"
    '<rect width="{0}" height="20" rx="3" fill="#454b54"/><path d="M{3} 0h{4}a3 3 0 0 1 3 3v14a3 3 0 0 1 -3 3h-{4}z" '
    'fill="{5}"/><g fill="#fff" font-family="Verdana,Geneva,DejaVu Sans,sans-serif" font-size="11" '
    'text-anchor="middle"><text x="{6}" y="14" textLength="{7}">{1}</text>'
    '<text x="{8}" y="14" textLength="{9}">{2}</text></g></svg>\n'
)


def message(implementation: Implementation) -> str:
    counts = [each.verdict for each in implementation.judged.values()]
    passed, failed = counts.count("pass"), counts.count("fail")
    said = {"pass": f"conforms, {passed} clauses", "fail": f"{failed} clauses fail", "error": "not judged"}
    return said[implementation.verdict]


def badge_svg(implementation: Implementation) -> str:
    said = message(implementation)
    left, right = round(len(LABEL) * LETTER + 2 * PAD), round(len(said) * LETTER + 2 * PAD)
    places = (left / 2, left - 2 * PAD, left + right / 2, right - 2 * PAD)
    colour = COLOURS[implementation.verdict][1]
    return _BADGE.format(left + right, LABEL, said, left, right - 3, colour, *(f"{place:.1f}" for place in places))


def badge_json(implementation: Implementation) -> str:
    """https://shields.io/badges/endpoint-badge"""
    endpoint = {
        "schemaVersion": 1,
        "label": LABEL,
        "message": message(implementation),
        "color": COLOURS[implementation.verdict][0],
    }
    return json.dumps(endpoint) + "\n"
