"""The feed-forward network and the MLP."""
