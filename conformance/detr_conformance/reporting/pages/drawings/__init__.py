"""Drawings of what went wrong: numbers and tensors in, inline SVG out. Colours come from the page's style."""
