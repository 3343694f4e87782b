"""Cases: boxes, matching and losses."""
