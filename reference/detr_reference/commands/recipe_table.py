"""What `detr-spec train --list` shows."""

from __future__ import annotations

from rich.table import Table

from detr_reference.training.recipes.recipe import Recipe, names


def table_of_recipes() -> Table:
    """A line for each installed recipe."""
    table = Table()
    table.add_column("recipe", no_wrap=True)  # to be copied
    table.add_column("what it trains")
    table.add_column("on")
    for column in ("epochs", "batch", "published AP"):
        table.add_column(column, justify="right")
    for recipe in map(Recipe.read, names()):
        published = "-" if recipe.published_ap is None else f"{recipe.published_ap:.1f}"
        training = recipe.training
        table.add_row(
            recipe.name, recipe.about, recipe.data.set, str(training.epochs), str(training.batch_size), published
        )
    return table
