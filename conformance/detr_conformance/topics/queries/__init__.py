"""Reference points, proposals, selection, refinement, and the decoder of DINO."""
