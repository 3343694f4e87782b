"""What a recipe would do and take, without data and without training."""
