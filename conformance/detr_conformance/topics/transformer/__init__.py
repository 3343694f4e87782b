"""Transformer layers and their stacks."""
