"""The user's own calls: saved as they are made, and read again to be judged."""
