"""The suite's pytest options as pytest would hand them over."""

from __future__ import annotations

from argparse import Namespace

from _pytest.config.argparsing import Parser

from detr_conformance import plugin


def suite_options(*typed: str) -> Namespace:
    """What was typed, and the defaults of the rest."""
    parser = Parser(_ispytest=True)
    plugin.pytest_addoption(parser)
    return parser.parse_known_args(list(typed))
