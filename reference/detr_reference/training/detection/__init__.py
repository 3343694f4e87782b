"""What trained models find: opened, evaluated, drawn."""
