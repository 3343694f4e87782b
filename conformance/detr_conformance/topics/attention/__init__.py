"""Multi-head, self- and cross-attention."""
