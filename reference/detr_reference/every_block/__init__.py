"""What holds of every block."""
