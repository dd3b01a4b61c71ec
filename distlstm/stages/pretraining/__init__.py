"""Training a language model: texts, workers, and its directory."""
