"""From text to token ids: Arrow columns in, Arrow columns out. Knows neither torch nor Ray."""
