"""What the suite asks, by topic: cases, checks, tests, wrong implementations, and right ones written differently."""
