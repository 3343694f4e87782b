"""The machinery of the suite: cases, oracles and limits, comparison, and the distrustful call of a target."""
