"""Right implementations, written differently: multi-head, self- and cross-attention."""
