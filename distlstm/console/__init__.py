"""What the user sees: the only modules that print."""
