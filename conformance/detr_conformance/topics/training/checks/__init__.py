"""Checks: the reference's trajectory, and the target at each of its steps."""
