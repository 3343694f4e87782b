"""Wrong implementations: backbones, necks, levels, masks and valid ratios."""
