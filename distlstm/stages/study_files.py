"""Names in a STUDY directory, for what writes one and for what shows one."""

STUDY_FILE = "study.json"
TRIALS_FILE = "trials.parquet"
"""A row per trial, best first."""
EPOCHS_FILE = "epochs.parquet"
"""A row per trial and epoch."""
METRICS = ("accuracy", "macro_f1", "loss")
"""Columns of both: a trial's figures on validation."""
BEST = "best"
"""A MODEL."""
BEST_CONFIG = "best.toml"
