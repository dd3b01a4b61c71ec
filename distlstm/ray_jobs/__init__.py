"""Commands as jobs of a Ray cluster: what is sent, and how a job is watched and stopped."""
