"""Wrong implementations: trainings."""
