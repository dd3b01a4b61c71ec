"""Files, units of work, encoded shards and batches. Knows pyarrow and Ray Data, not torch."""
