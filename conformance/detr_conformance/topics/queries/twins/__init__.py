"""Right implementations, written differently: from memory to queries, and the decoder of DINO."""
