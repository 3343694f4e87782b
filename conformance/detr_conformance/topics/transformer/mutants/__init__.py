"""Wrong implementations: transformer layers and their stacks."""
