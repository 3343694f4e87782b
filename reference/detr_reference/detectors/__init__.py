"""Whole detectors and their post-processing."""
