"""The classifier: batches of ids in, logits out; training, metrics, saving. No Ray here."""
