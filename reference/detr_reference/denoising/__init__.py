"""Denoising queries."""
