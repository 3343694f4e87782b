"""Wrong implementations: boxes, matching and losses."""
