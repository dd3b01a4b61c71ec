"""Entry points of Ray jobs; the package does not import them."""
