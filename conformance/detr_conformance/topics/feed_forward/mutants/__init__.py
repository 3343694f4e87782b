"""Wrong implementations: the feed-forward network and the MLP."""
