"""Right implementations, written differently: boxes, matching and losses."""
