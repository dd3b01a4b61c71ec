"""Entry points of Ray jobs. Nothing in the package imports them."""
