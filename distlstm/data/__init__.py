"""Files, units of work, encoded shards and batches. Imports pyarrow and Ray Data, not torch."""
