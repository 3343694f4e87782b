"""Cases: a few of each operation."""
