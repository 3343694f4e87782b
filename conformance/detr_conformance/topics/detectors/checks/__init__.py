"""Checks: whole detectors and their post-processing."""
