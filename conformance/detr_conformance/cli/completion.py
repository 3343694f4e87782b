"""What a shell may offer after TAB."""

from __future__ import annotations

import difflib

import click
from click.shell_completion import CompletionItem

from detr_conformance.operations import OPERATIONS


class TargetName(click.ParamType):
    """A TARGET: installed names, and files."""

    name = "target"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from detr_conformance.running.loaders import installed_targets

        names = [CompletionItem(name) for name in installed_targets() if name.startswith(incomplete)]
        return names or [CompletionItem(incomplete, type="file")]


class OperationName(click.Choice[str]):
    """The id of an operation; one that is nearly right is answered with the right one."""

    def __init__(self) -> None:
        super().__init__(list(OPERATIONS))

    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        close = difflib.get_close_matches(str(value), OPERATIONS, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(OPERATIONS)}"
        return f"there is no operation {value!r}; {hint}"


class ClauseId(click.ParamType):
    """The id of a clause, in any case."""

    name = "id"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from detr_conformance.evidence.clauses import ClauseError, load_clauses

        try:
            clauses = load_clauses(retired=True)
        except ClauseError:
            return []
        return [
            CompletionItem(clause.id, help=clause.short)
            for clause in clauses.values()
            if clause.id.startswith(incomplete.upper())
        ]
