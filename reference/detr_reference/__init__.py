"""The readable reference of every block, with the spec chapters beside it."""
