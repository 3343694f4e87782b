"""Commands as a user types them."""

from __future__ import annotations

from click.testing import CliRunner, Result

from detr_reference.cli import main


def run(*arguments: object) -> Result:
    """One call of `detr-spec`; only SystemExit may come out of it."""
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    return result
