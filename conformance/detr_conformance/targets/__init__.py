"""Adapters of implementations that are checked out of the box; importing one imports neither torch nor its library."""
