"""Cases: multi-head, self- and cross-attention."""
