"""The classifier, from batches of ids to logits; training, metrics, saving. Does not use Ray."""
