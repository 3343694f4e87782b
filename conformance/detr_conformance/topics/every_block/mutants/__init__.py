"""Wrong implementations: what holds of every block."""
