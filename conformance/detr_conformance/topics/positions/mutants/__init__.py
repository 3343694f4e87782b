"""Wrong implementations: position embeddings."""
