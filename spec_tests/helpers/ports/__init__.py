"""Ports of DINO, right and wrong."""
