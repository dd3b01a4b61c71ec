"""From text to token ids: Arrow columns in, Arrow columns out. Imports neither torch nor Ray."""
