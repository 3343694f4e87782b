"""Whose results a failing target reproduces: the known mistakes, the mutants, that it behaves like."""
