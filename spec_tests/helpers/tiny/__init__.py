"""Tiny models, batches and images, every number random, for tests."""
