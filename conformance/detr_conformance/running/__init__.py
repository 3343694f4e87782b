"""Runs of the suite: targets found and loaded, sessions, processes, and the trials of mutants and twins."""
