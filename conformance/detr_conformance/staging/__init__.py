"""Where a model parts from the reference: its stages, one after another, and the parts of the one that does."""
