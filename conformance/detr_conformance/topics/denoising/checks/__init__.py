"""Checks: denoising queries, and the independence of their random numbers."""
