"""Workloads to measure implementations on; the figures are ratios to the reference in the same run."""
