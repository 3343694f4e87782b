"""The pictures of the spec chapters, drawn from the reference."""
