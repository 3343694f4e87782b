"""Wrong implementations: whole detectors and their post-processing."""
