"""Cases of the suite on disk: inputs, right results in float64 and the limit of every element, for any language."""
