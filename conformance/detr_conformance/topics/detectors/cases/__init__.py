"""Cases: whole detectors and their post-processing."""
