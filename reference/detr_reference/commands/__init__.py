"""The subcommands of `detr-spec` that train, evaluate and predict."""
