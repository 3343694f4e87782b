"""Wrong implementations: multi-head, self- and cross-attention."""
