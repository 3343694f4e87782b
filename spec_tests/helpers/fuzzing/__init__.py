"""Damaged input for everything that reads from outside."""
