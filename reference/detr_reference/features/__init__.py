"""Backbones, necks, levels, masks and valid ratios."""
