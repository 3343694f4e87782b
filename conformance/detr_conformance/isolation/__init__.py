"""A target in a process of its own: what the judge asks goes there as messages, what comes back is plain numbers."""
