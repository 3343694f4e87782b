"""What stands behind the suite: the clauses of the spec, and the catalogue of tests, mutants and twins."""
