"""Checks: boxes, matching and losses."""
