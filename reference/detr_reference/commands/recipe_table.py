"""What `detr-spec train --list` shows."""

from __future__ import annotations

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from detr_reference.training.recipes.recipe import Recipe, names


def table_of_recipes() -> Table:
    """Two lines for each installed recipe: its name, to be copied, with its numbers, and what it trains."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("recipe", overflow="fold", min_width=34)
    table.add_column("on", no_wrap=True)
    for column in ("epochs", "batch", "published AP"):
        table.add_column(column, justify="right", no_wrap=True)
    for recipe in map(Recipe.read, names()):
        published = "-" if recipe.published_ap is None else f"{recipe.published_ap:.1f}"
        training = recipe.training
        numbers = (recipe.data.set, str(training.epochs), str(training.batch_size), published)
        table.add_row(Text(recipe.name, style="bold"), *numbers)
        table.add_row(Padding(Text(recipe.about, style="dim"), (0, 0, 0, 2)))
    return table
