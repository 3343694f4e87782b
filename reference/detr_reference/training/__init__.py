"""Training of the reference's models: recipes, objective, optimiser, loop, evaluation."""
