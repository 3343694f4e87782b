"""How a model learns: its objective, optimiser, schedule and averages."""
