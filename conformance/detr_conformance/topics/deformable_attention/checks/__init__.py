"""Checks: multi-scale deformable attention, its oracle and limits."""
