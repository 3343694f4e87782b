"""Boxes, matching and losses."""
