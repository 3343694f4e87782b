"""Few shapes: cases of few forms, for what is compiled anew for each, and an account of what that leaves out."""
