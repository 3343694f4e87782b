"""Templates, filled in with everything escaped that is not made here as HTML."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from detr_conformance.reporting.pages.plain import safe_link
from detr_conformance.reporting.pages.prose import prose

PACKAGE = "detr_conformance.reporting.pages"


def rendered(template: str, **values: Any) -> str:
    """A file of `templates/`, filled in; halves of letters, which JSON may hold and no file, are replaced."""
    return _environment().get_template(template).render(values).encode("utf-8", "replace").decode("utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": prose, "safe_link": safe_link}
    environment.globals |= {"style": Markup(text_of("style.css")), "script": Markup(text_of("script.js"))}
    return environment


def text_of(name: str) -> str:
    """A file of `templates/` as it is."""
    return (files(PACKAGE) / "templates" / name).read_text(encoding="utf-8")
