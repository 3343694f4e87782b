"""Recipes: what a TOML file says of a training; the published ones lie here."""
