"""Subcommands of `detr-spec` for conformance. Light to import: `detr-spec --help` imports all of them."""
