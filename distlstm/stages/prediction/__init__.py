"""Applying a model to many files: input, actor pool, windows, parts and the manifest."""
