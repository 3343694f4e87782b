"""Wrong implementations: the Vision Transformer."""
