"""What a shell may offer after TAB."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


class TargetName(click.ParamType):
    """A TARGET: installed names, and files."""

    name = "target"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from detr_conformance.running.loaders import installed_targets

        names = [CompletionItem(name) for name in installed_targets() if name.startswith(incomplete)]
        return names or [CompletionItem(incomplete, type="file")]


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
