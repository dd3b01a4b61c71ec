"""A model behind HTTP, on Ray Serve."""
