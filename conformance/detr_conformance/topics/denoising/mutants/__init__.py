"""Wrong implementations: denoising queries."""
