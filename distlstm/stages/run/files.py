"""Names of files in the directories that commands write, for those who write and those who read."""

CHECKPOINTS = "checkpoints"
"""In a MODEL: the state of a training that is not finished."""
HISTORY_FILE = "history.parquet"
"""In a MODEL: a row per epoch."""

STUDY_FILE = "study.json"
TRIALS_FILE = "trials.parquet"
"""In a STUDY: a row per trial, best first."""
EPOCHS_FILE = "epochs.parquet"
"""In a STUDY: a row per trial and epoch."""
METRICS = ("accuracy", "macro_f1", "loss")
"""Columns of both: a trial's figures on validation."""
BEST = "best"
"""In a STUDY, a MODEL; in an interrupted MODEL, the best epoch so far as a MODEL of its own."""
BEST_CONFIG = "best.toml"

METRICS_FILE, ERRORS_FILE = "metrics.json", "errors.parquet"
"""In an evaluation: the figures, and the wrong rows of highest score."""
EVALUATION_FILE = "evaluation.json"
"""In an evaluation: which command made it, and whether it is complete."""

MANIFEST_FILE, SUCCESS_FILE = "_manifest.json", "_SUCCESS"
"""In a prediction output: what it holds, and the mark of a complete one."""
